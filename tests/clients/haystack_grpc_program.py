"""Runs in the environment `clients`: Haystack's components for TEI over gRPC; prints what they give, as JSON."""

import json
import sys

from haystack import Document
from haystack.utils import Secret
from haystack_integrations.components.embedders.huggingface_api import (
    HuggingFaceAPIDocumentEmbedder,
    HuggingFaceAPITextEmbedder,
)
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker

arguments = json.loads(sys.argv[1])
target, texts = arguments["target"], arguments["texts"]
key = Secret.from_token(arguments["key"])

embedding = {
    "api_type": "text_embeddings_inference",
    "api_params": {"url": target},
    "token": key,
    "normalize": True,
    "use_grpc": True,
}
documents = [Document(content=text) for text in texts]
embedded = HuggingFaceAPIDocumentEmbedder(**embedding).run(documents)["documents"]
text_embedder = HuggingFaceAPITextEmbedder(**embedding)
ranker = HuggingFaceTEIRanker(url=target, top_k=2, token=key, use_grpc=True)
ranked = ranker.run(arguments["query"], [Document(content=text) for text in arguments["documents"]])

print(
    json.dumps(
        {
            "documents": [one.embedding for one in embedded],
            "texts": [text_embedder.run(text)["embedding"] for text in texts],
            "ranked": [[one.content, one.score] for one in ranked["documents"]],
        }
    )
)
