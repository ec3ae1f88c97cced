"""Runs in litellm's own environment: its provider for Hugging Face (TEI) embeds and reranks; prints it as JSON."""

import json
import sys

import litellm

arguments = json.loads(sys.argv[1])
# With "sentence-transformers" in the name it would ask for similarities instead of vectors.
common = {"api_key": arguments["key"], "model": "huggingface/all-MiniLM-L6-v2"}


def rerank(**changes):
    call = {**common, "query": arguments["query"], "documents": arguments["documents"], **changes}
    try:
        answer = litellm.rerank(api_base=arguments["url"], **call)
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}
    return [[one["index"], one["relevance_score"], (one.get("document") or {}).get("text")] for one in answer.results]


def embed(texts):
    # Without input_type it asks the model hub what the model is for.
    answer = litellm.embedding(
        input=texts, api_base=f"{arguments['url']}/embed", input_type="feature-extraction", max_retries=0, **common
    )
    return [entry["embedding"] for entry in answer.data]


print(
    json.dumps(
        {
            "vectors": embed(arguments["texts"]),
            "ranked": rerank(),
            "top": rerank(top_n=1, return_documents=True),
            "wrong key": rerank(api_key="no"),
        }
    )
)
