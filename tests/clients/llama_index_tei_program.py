"""Runs in the environment `clients`: LlamaIndex's embeddings and reranker for TEI; prints what they give, as JSON."""

import asyncio
import json
import sys

from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference as Reranker

arguments = json.loads(sys.argv[1])
url, key, texts = arguments["url"], arguments["key"], arguments["texts"]

embedder = TextEmbeddingsInference(
    model_name=arguments["model"],
    base_url=url,
    auth_token=key,
    embed_batch_size=4,
    text_instruction="",
    query_instruction="",
)
ranker = Reranker(base_url=url, auth_token=key, top_n=2)
nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in arguments["documents"]]
ranked = ranker.postprocess_nodes(nodes, QueryBundle(arguments["query"]))

print(
    json.dumps(
        {
            "texts": embedder.get_text_embedding_batch(texts),
            "queries": [embedder.get_query_embedding(text) for text in texts],
            "async": asyncio.run(embedder.aget_text_embedding_batch(texts)),
            "ranked": [[one.node.text, one.score] for one in ranked],
            "error": embedder._call_api(["a"] * 9),  # it shows whatever comes as the vectors
        }
    )
)
