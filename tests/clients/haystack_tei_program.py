"""Runs in the environment `clients`: Haystack's components for TEI over HTTP; prints what they give, as JSON."""

import asyncio
import json
import sys

from haystack import Document
from haystack.utils import Secret
from haystack_integrations.components.embedders.huggingface_api import (
    HuggingFaceAPIDocumentEmbedder,
    HuggingFaceAPITextEmbedder,
)
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker
from haystack_integrations.components.rankers.huggingface_api.ranker import TruncationDirection

arguments = json.loads(sys.argv[1])
url, texts = arguments["url"], arguments["texts"]
key = Secret.from_token(arguments["key"])

embedding = {
    "api_type": "text_embeddings_inference",
    "api_params": {"url": url},
    "token": key,
    "normalize": True,  # false is its default: vectors as they come from the pooling
}
documents = [Document(content=text) for text in texts]
embedded = HuggingFaceAPIDocumentEmbedder(batch_size=4, **embedding).run(documents)["documents"]
text_embedder = HuggingFaceAPITextEmbedder(**embedding)

ranker = HuggingFaceTEIRanker(url=url, top_k=2, token=key, max_retries=0)
given = [Document(content=text) for text in arguments["documents"]]


def ranks(found):
    return [[one.content, one.score] for one in found["documents"]]


def error(count):
    try:
        ranker.run("a", [Document(content=str(index)) for index in range(count)])
    except RuntimeError as raised:
        return str(raised)


print(
    json.dumps(
        {
            "documents": [one.embedding for one in embedded],
            "texts": [text_embedder.run(text)["embedding"] for text in texts],
            "ranked": ranks(ranker.run(arguments["query"], given)),
            "truncated": ranks(ranker.run(arguments["query"], given, truncation_direction=TruncationDirection.LEFT)),
            "async": ranks(asyncio.run(ranker.run_async(arguments["query"], given))),
            "error": error(9),
        }
    )
)
