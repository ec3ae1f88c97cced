"""Runs in the environment `older-clients`: langchain-cohere, LlamaIndex's Cohere reranker, and langchain-community's
classes for Jina and Voyage; prints what they give, as JSON."""

import json
import sys

from langchain_cohere import CohereEmbeddings, CohereRerank
from langchain_community.document_compressors import jina_rerank
from langchain_community.embeddings import VoyageEmbeddings
from langchain_community.embeddings import jina as jina_embeddings
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.cohere_rerank import CohereRerank as LlamaIndexRerank

arguments = json.loads(sys.argv[1])
url, key, model, texts = (arguments[name] for name in ("url", "key", "model", "texts"))
query, documents = arguments["query"], arguments["documents"]
# These two know one address only.
jina_embeddings.JINA_API_URL = f"{url}/v1/embeddings"
jina_rerank.JINA_API_URL = f"{url}/v1/rerank"

cohere = CohereEmbeddings(model=model, cohere_api_key=key, base_url=url)
ranker = CohereRerank(model=model, cohere_api_key=key, base_url=url, top_n=2)
llama_index = LlamaIndexRerank(model=model, api_key=key, base_url=url, top_n=2)
nodes = [NodeWithScore(node=TextNode(text=text)) for text in documents]
jina = jina_embeddings.JinaEmbeddings(jina_api_key=key, model_name=model)
jina_ranker = jina_rerank.JinaRerank(jina_api_key=key, model=model, top_n=2)
voyage = VoyageEmbeddings(voyage_api_key=key, model=model, voyage_api_base=f"{url}/v1/embeddings")


def error(call):
    try:
        call()
    except RuntimeError as raised:
        return str(raised)


print(
    json.dumps(
        {
            "cohere": cohere.embed_documents(texts),
            "cohere query": cohere.embed_query(texts[0]),
            "cohere ranks": [[one["index"], one["relevance_score"]] for one in ranker.rerank(documents, query)],
            "compressed": [
                one.page_content
                for one in ranker.compress_documents([Document(page_content=text) for text in documents], query)
            ],
            "llama index": [
                [one.node.get_content(), one.score] for one in llama_index.postprocess_nodes(nodes, query_str=query)
            ],
            "jina": jina.embed_documents(texts),
            "jina ranks": [[one["index"], one["relevance_score"]] for one in jina_ranker.rerank(documents, query)],
            "jina error": error(
                lambda: jina_embeddings.JinaEmbeddings(jina_api_key=key, model_name="no").embed_query("a")
            ),
            "voyage": voyage.embed_documents(texts),
        }
    )
)
