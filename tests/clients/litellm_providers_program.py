"""Runs in litellm's own environment: its providers jina_ai, voyage and cohere; prints what they give, as JSON."""

import json
import sys

import litellm

arguments = json.loads(sys.argv[1])
url, model = arguments["url"], arguments["model"]
query, documents = arguments["query"], arguments["documents"]


def attempt(call, **given):
    try:
        return call(api_key=arguments["key"], **given)
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}


def embed(provider, base, **more):
    answer = attempt(litellm.embedding, model=f"{provider}/{model}", input=arguments["texts"], api_base=base, **more)
    if isinstance(answer, dict):
        return answer
    return {"vectors": [one["embedding"] for one in answer.data], "tokens": answer.usage.total_tokens}


def rerank(provider, base):
    answer = attempt(
        litellm.rerank, model=f"{provider}/{model}", query=query, documents=documents, top_n=2, api_base=base
    )
    if isinstance(answer, dict):
        return answer
    return [[one["index"], one["relevance_score"], (one.get("document") or {}).get("text")] for one in answer.results]


print(
    json.dumps(
        {
            "jina_ai": embed("jina_ai", f"{url}/v1"),
            "voyage": embed("voyage", f"{url}/v1"),
            "voyage dimensions": embed("voyage", f"{url}/v1", dimensions=64),
            "cohere": embed("cohere", f"{url}/v2/embed", encoding_format="float"),
            "jina_ai ranks": rerank("jina_ai", url),
            "voyage ranks": rerank("voyage", f"{url}/v1"),
            "cohere ranks": rerank("cohere", url),
        }
    )
)
