"""Runs in the environment `clients`: Haystack's components for Jina and Cohere; prints what they give, as JSON."""

import json
import sys

from haystack import Document
from haystack.utils import Secret
from haystack_integrations.components.embedders.cohere import CohereDocumentEmbedder, CohereTextEmbedder
from haystack_integrations.components.embedders.cohere.embedding_types import EmbeddingTypes
from haystack_integrations.components.embedders.jina import JinaDocumentEmbedder, JinaTextEmbedder
from haystack_integrations.components.rankers.cohere import CohereRanker
from haystack_integrations.components.rankers.jina import JinaRanker

arguments = json.loads(sys.argv[1])
url, model, texts = arguments["url"], arguments["model"], arguments["texts"]
key = {"api_key": Secret.from_token(arguments["key"]), "model": model}
jina = {**key, "base_url": f"{url}/v1/embeddings"}
cohere = {**key, "api_base_url": url}
documents = [Document(content=text) for text in texts]
given = [Document(content=text) for text in arguments["documents"]]


def vectors(embedder):
    return [one.embedding for one in embedder.run(documents)["documents"]]


def ranks(ranker):
    return [[one.content, one.score] for one in ranker.run(arguments["query"], given)["documents"]]


def error(call):
    try:
        call()
    except RuntimeError as raised:
        return str(raised)


late = JinaDocumentEmbedder(**jina, task="retrieval.passage", late_chunking=True, batch_size=2)
print(
    json.dumps(
        {
            "jina": vectors(JinaDocumentEmbedder(**jina, batch_size=3)),
            "jina task": vectors(JinaDocumentEmbedder(**jina, task="text-matching")),
            "jina late": [one.embedding for one in late.run(given[:2])["documents"]],
            "jina text": JinaTextEmbedder(**jina, task="retrieval.query").run(texts[0])["embedding"],
            "jina ranks": ranks(JinaRanker(**key, base_url=f"{url}/v1/rerank", top_k=2)),
            "jina error": error(lambda: JinaTextEmbedder(**{**jina, "model": "no"}).run("a")),
            "cohere": vectors(CohereDocumentEmbedder(**cohere)),
            "cohere bits": vectors(CohereDocumentEmbedder(**cohere, embedding_type=EmbeddingTypes.UBINARY)),
            "cohere text": CohereTextEmbedder(**cohere).run(texts[0])["embedding"],
            "cohere ranks": ranks(CohereRanker(**cohere, top_k=2)),
        }
    )
)
