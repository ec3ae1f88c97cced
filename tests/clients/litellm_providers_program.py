"""Runs in litellm's own environment: makes the calls that it is given, by name; prints what they give, as JSON."""

import asyncio
import json
import sys

import litellm

arguments = json.loads(sys.argv[1])


def embedding(**given):
    answer = litellm.embedding(max_retries=0, **given)
    return {"vectors": [one["embedding"] for one in answer.data], "tokens": answer.usage.total_tokens}


def rerank(**given):
    return ranks(litellm.rerank(**given))


def arerank(**given):
    return ranks(asyncio.run(litellm.arerank(**given)))


def ranks(answer):
    return [[one["index"], one["relevance_score"], (one.get("document") or {}).get("text")] for one in answer.results]


def attempt(kind, **given):
    try:
        return {"embedding": embedding, "rerank": rerank, "arerank": arerank}[kind](**given)
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}


print(json.dumps({name: attempt(**call) for name, call in arguments["calls"].items()}))
