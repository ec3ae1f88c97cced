"""Runs in the environment `clients`: lemni.integrations.llama_index; prints what it gives, as JSON."""

import asyncio
import json
import pickle
import sys

from llama_index.core import VectorStoreIndex
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import MockLLM
from llama_index.core.schema import NodeWithScore, TextNode

import lemni
from lemni.integrations.llama_index import LemniEmbedding, LemniRerank

arguments = json.loads(sys.argv[1])
url, texts, query = arguments["url"], arguments["texts"], arguments["query"]
nodes = [TextNode(text=text) for text in arguments["documents"]]
hits = [NodeWithScore(node=node, score=0.5) for node in nodes]
plain = LemniEmbedding(model=arguments["model"], base_url=url, api_key="secret")
sided = LemniEmbedding(model="sided", base_url=url)
ranker = LemniRerank(model="ranker", base_url=url, options={"raw_scores": True})
client = lemni.Client(url, model=arguments["model"])
events = []


class Listener(BaseEventHandler):
    def handle(self, event, **kwargs):
        events.append(event.class_name())


get_dispatcher().add_event_handler(Listener())


def scored(found):
    return [[one.node.get_content(), one.score] for one in found]


async def with_an_async_client():
    async with lemni.AsyncClient(url) as client:
        embedding = LemniEmbedding(model="sided", async_client=client)
        rerank = LemniRerank(model="ranker", async_client=client, options={"raw_scores": True})
        return (
            await embedding.aget_text_embedding_batch(arguments["documents"]),
            await embedding.aget_query_embedding(query),
            scored(await rerank.apostprocess_nodes(hits, query_str=query)),
        )


def refused():
    try:
        ranker.postprocess_nodes(hits)
    except lemni.LemniError as error:
        return str(error)


own = asyncio.run(with_an_async_client())
index = VectorStoreIndex(nodes, embed_model=LemniEmbedding(client=client))
engine = index.as_query_engine(
    llm=MockLLM(), similarity_top_k=3, node_postprocessors=[LemniRerank(client=client, top_n=2)]
)
again = LemniEmbedding.from_dict({**plain.to_dict(), "api_key": "secret"})
print(
    json.dumps(
        {
            "batch": plain.get_text_embedding_batch(texts),
            "async batch": asyncio.run(plain.aget_text_embedding_batch(texts)),
            "one by one": [plain.get_text_embedding(text) for text in texts],
            "async one by one": [asyncio.run(plain.aget_text_embedding(text)) for text in texts],
            "from a dictionary": again.get_text_embedding_batch(texts),
            "from a pickle": pickle.loads(pickle.dumps(plain)).get_text_embedding_batch(texts),
            "sided documents": sided.get_text_embedding_batch(arguments["documents"]),
            "sided query": sided.get_query_embedding(query),
            "async sided documents": own[0],
            "async sided query": own[1],
            "ranks": scored(ranker.postprocess_nodes(hits, query_str=query)),
            "async ranks": own[2],
            "thread ranks": scored(asyncio.run(ranker.apostprocess_nodes(hits, query_str=query))),
            "no ranks": ranker.postprocess_nodes([], query_str=query),
            "refused": refused(),
            "found": scored(index.as_retriever(similarity_top_k=3).retrieve(query)),
            "queried": scored(engine.query(query).source_nodes),
            "events": sorted(set(events)),
            "shown": repr(plain) + repr(plain.to_dict()),
        }
    )
)
