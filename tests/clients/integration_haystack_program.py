"""Runs in the environment `clients`: lemni.integrations.haystack; prints what it gives, as JSON."""

import asyncio
import json
import sys

from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import Secret

import lemni
from lemni.integrations.haystack import LemniDocumentEmbedder, LemniRanker, LemniTextEmbedder

arguments = json.loads(sys.argv[1])
url, texts, query = arguments["url"], arguments["texts"], arguments["query"]
plain = {"model": arguments["model"], "base_url": url, "api_key": None}
sided = {"model": "sided", "base_url": url, "progress_bar": False}
ranking = {"model": "ranker", "base_url": url, "options": {"raw_scores": True}}
given = [Document(content=text, meta={"title": "a title", "year": 1999}) for text in arguments["documents"]]
fields = {"meta_fields_to_embed": ["title", "year", "none"], "embedding_separator": " | "}


def vectors(result):
    return [one.embedding for one in result["documents"]]


def scored(result):
    return [[one.content, one.score] for one in result["documents"]]


def error(call):
    try:
        call()
    except (TypeError, ValueError, lemni.LemniError) as raised:
        return str(raised)


def pipelines(client):
    """Documents into a store, and a search in it, both by way of YAML."""
    indexing, search = Pipeline(), Pipeline()
    store = InMemoryDocumentStore(embedding_similarity_function="cosine", index="shared")
    indexing.add_component("embedder", LemniDocumentEmbedder(client=client))
    indexing.add_component("writer", DocumentWriter(store))
    indexing.connect("embedder", "writer")
    search.add_component("embedder", LemniTextEmbedder(client=client))
    search.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=3))
    search.add_component("ranker", LemniRanker(client=client, top_k=2))
    search.connect("embedder.embedding", "retriever.query_embedding")
    search.connect("retriever", "ranker")
    return indexing, search, indexing.dumps() + search.dumps()


def searched(indexing, search):
    indexing.run({"embedder": {"documents": given}, "writer": {"policy": "overwrite"}})
    return scored(search.run({"embedder": {"text": query}, "ranker": {"query": query}})["ranker"])


async def with_an_async_client():
    async with lemni.AsyncClient(url) as client:
        options = {"async_client": client}
        documents = await LemniDocumentEmbedder("sided", **options, progress_bar=False).run_async(given)
        text = await LemniTextEmbedder("sided", **options).run_async(query)
        ranks = await LemniRanker("ranker", **options, options={"raw_scores": True}).run_async(query, given)
        return vectors(documents), text["embedding"], scored(ranks)


own = asyncio.run(with_an_async_client())
with lemni.Client(url, model=arguments["model"]) as client:
    indexing, search, written = pipelines(client)
    found = searched(indexing, search)
ranker = LemniRanker(**ranking)
again = [Pipeline.loads(one.dumps()) for one in (indexing, search)]
print(
    json.dumps(
        {
            "documents": vectors(LemniDocumentEmbedder(**plain).run([Document(content=text) for text in texts])),
            "texts": [LemniTextEmbedder(**plain).run(text)["embedding"] for text in texts],
            "none": LemniDocumentEmbedder(**plain).run([])["documents"],
            "sided documents": vectors(LemniDocumentEmbedder(**sided).run(given)),
            "sided query": LemniTextEmbedder("sided", url).run(query)["embedding"],
            "async sided documents": own[0],
            "async sided query": own[1],
            "with fields": vectors(LemniDocumentEmbedder(**sided, **fields).run(given)),
            "ids kept": [one.id for one in LemniDocumentEmbedder(**sided).run(given)["documents"]]
            == [one.id for one in given],
            "ranks": scored(ranker.run(query, given)),
            "async ranks": own[2],
            "thread ranks": scored(asyncio.run(ranker.run_async(query, given))),
            "best": scored(ranker.run(query, given, top_k=1)),
            "ranks with fields": scored(LemniRanker(**ranking, **fields).run(query, given)),
            "found": found,
            "found again": searched(*again),
            "written": written,
            "same dictionary": LemniRanker.from_dict(LemniRanker(**ranking, **fields).to_dict()).to_dict()
            == LemniRanker(**ranking, **fields).to_dict(),
            "no text": error(lambda: LemniTextEmbedder(**plain).run(given)),
            "no documents": error(lambda: LemniDocumentEmbedder(**plain).run("a")),
            "token": error(lambda: LemniRanker(api_key=Secret.from_token("secret")).to_dict()),
            "two addresses": error(lambda: LemniRanker(base_url=url, client=lemni.Client(url))),
        }
    )
)
