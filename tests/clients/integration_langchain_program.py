"""Runs in the environment `clients`: lemni.integrations.langchain; prints what it gives, as JSON."""

import asyncio
import json
import sys

from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

import lemni
from lemni.integrations.langchain import LemniEmbeddings, LemniRerank

arguments = json.loads(sys.argv[1])
url, texts, query = arguments["url"], arguments["texts"], arguments["query"]
documents = [Document(id=f"id {text}", page_content=text, metadata={"a": 1}) for text in arguments["documents"]]
client = lemni.Client(url, model=arguments["model"])
plain = LemniEmbeddings(arguments["model"], base_url=url)
sided = LemniEmbeddings("sided", base_url=url)
ranker = LemniRerank(model="ranker", base_url=url, api_key="secret", options={"raw_scores": True})
store = InMemoryVectorStore(LemniEmbeddings(client=client))
store.add_documents(documents)
retriever = ContextualCompressionRetriever(
    base_compressor=LemniRerank(client=client, top_n=2), base_retriever=store.as_retriever(search_kwargs={"k": 3})
)


def scored(found):
    return [[one.page_content, one.metadata["relevance_score"], one.metadata["a"], one.id] for one in found]


def refused(embeddings):
    try:
        embeddings.embed_query("a")
    except lemni.LemniError as error:
        return str(error)


async def with_an_async_client():
    async with lemni.AsyncClient(url) as client:
        embeddings = LemniEmbeddings("sided", async_client=client)
        rerank = LemniRerank(model="ranker", async_client=client, options={"raw_scores": True})
        return (
            await embeddings.aembed_documents(arguments["documents"]),
            await embeddings.aembed_query(query),
            scored(await rerank.acompress_documents(documents, query)),
            refused(embeddings),
        )


own = asyncio.run(with_an_async_client())
print(
    json.dumps(
        {
            "documents": plain.embed_documents(texts),
            "async documents": asyncio.run(plain.aembed_documents(texts)),
            "none": plain.embed_documents([]),
            "short": len(LemniEmbeddings("sided", base_url=url, options={"dimensions": 8}).embed_query("a")),
            "sided documents": sided.embed_documents(arguments["documents"]),
            "sided query": sided.embed_query(query),
            "async sided documents": own[0],
            "async sided query": own[1],
            "thread sided query": asyncio.run(sided.aembed_query(query)),
            "ranks": scored(ranker.compress_documents(documents, query)),
            "async ranks": own[2],
            "thread ranks": scored(asyncio.run(ranker.acompress_documents(documents, query))),
            "no ranks": ranker.compress_documents([], query),
            "sync": own[3],
            "untouched": [one.metadata for one in documents],
            "found": [[one.page_content, score] for one, score in store.similarity_search_with_score(query, k=3)],
            "compressed": scored(retriever.invoke(query)),
            "async compressed": scored(asyncio.run(retriever.ainvoke(query))),
            "shown": repr(ranker) + repr(ranker.model_dump()),
        }
    )
)
