"""Runs in litellm's own environment: asks the server for vectors and provokes errors; prints what came, as JSON."""

import json
import sys

import litellm

arguments = json.loads(sys.argv[1])


def embed(**changes):
    call = {
        "model": f"openai/{arguments['model']}",
        "input": arguments["texts"],
        "api_base": arguments["api_base"],
        "api_key": arguments["api_key"],
        "max_retries": 0,
        **changes,
    }
    try:
        answer = litellm.embedding(**call)
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}
    usage = answer.usage
    return {
        "vectors": [entry["embedding"] for entry in answer.data],
        "usage": [usage.prompt_tokens, usage.total_tokens],
    }


print(
    json.dumps(
        {
            "default": embed(),
            "float": embed(encoding_format="float"),
            "base64": embed(encoding_format="base64"),
            "unknown model": embed(model="openai/nothing"),
            "wrong key": embed(api_key="no"),
        }
    )
)
