"""Runs in the environment `clients`: Mixedbread's client; prints what it gives, as JSON."""

import asyncio
import json
import sys

import mixedbread

arguments = json.loads(sys.argv[1])
url, key, model, texts = (arguments[name] for name in ("url", "key", "model", "texts"))
client = mixedbread.Mixedbread(api_key=key, base_url=url, max_retries=0)
formats = ["float", "float16", "base64", "int8", "uint8", "binary", "ubinary"]


def error(call):
    try:
        call()
    except mixedbread.APIStatusError as raised:
        return {"class": type(raised).__name__, "body": raised.body}


async def asynchronous():
    async with mixedbread.AsyncMixedbread(api_key=key, base_url=url, max_retries=0) as other:
        answer = await other.embed(model=model, input=texts)
        return [one.embedding for one in answer.data]


several = client.embed(model=model, input=texts, dimensions=64, normalized=True, encoding_format=formats)
plain = client.embed(model=model, input=texts)
ranked = client.rerank(model=model, query=arguments["query"], input=arguments["documents"], top_k=2, return_input=True)
fields = [{"t": text, "n": 1} for text in arguments["documents"]]
by_field = client.rerank(query=arguments["query"], input=fields, rank_fields=["t"])
print(
    json.dumps(
        {
            "plain": [one.embedding for one in plain.data],
            "usage": [plain.usage.prompt_tokens, plain.usage.total_tokens],
            "async": asyncio.run(asynchronous()),
            "several": [{name: getattr(one.embedding, name, None) for name in formats} for one in several.data],
            "said": [several.normalized, several.encoding_format, several.dimensions],
            "single": {
                name: [one.embedding for one in client.embed(model=model, input=texts, encoding_format=name).data]
                for name in ("base64", "ubinary")
            },
            "ranked": [[one.index, one.score, one.input] for one in ranked.data],
            "ranked said": [ranked.top_k, ranked.return_input],
            "by field": [[one.index, one.score] for one in by_field.data],
            "unknown": error(lambda: client.embed(model="no", input="a")),
            "empty": error(lambda: client.rerank(model=model, query="a", input=[])),
            "key": error(lambda: mixedbread.Mixedbread(api_key="no", base_url=url).embed(model=model, input="a")),
        }
    )
)
