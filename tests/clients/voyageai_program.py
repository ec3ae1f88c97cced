"""Runs in the environment `clients`: Voyage's client; prints what it gives, as JSON."""

import asyncio
import json
import sys

import voyageai

arguments = json.loads(sys.argv[1])
url, key, model, texts = (arguments[name] for name in ("url", "key", "model", "texts"))
client = voyageai.Client(api_key=key, base_url=f"{url}/v1")


def error(call):
    try:
        call()
    except voyageai.error.VoyageError as raised:
        return {"class": type(raised).__name__, "message": str(raised)}


def rerank(base):
    found = voyageai.Client(api_key=key, base_url=base).rerank(
        arguments["query"], arguments["documents"], model, top_k=2
    )
    return {
        "ranks": [[one.index, one.document, one.relevance_score] for one in found.results],
        "tokens": found.total_tokens,
    }


async def asynchronous():
    found = await voyageai.AsyncClient(api_key=key, base_url=f"{url}/v1").embed(texts, model=model)
    return found.embeddings


plain = client.embed(texts, model=model, input_type="document")
chunks = client.contextualized_embed(arguments["chunks"], model=model, input_type="document")
multimodal = client.multimodal_embed([[text] for text in texts], model=model, input_type="query")
print(
    json.dumps(
        {
            "plain": plain.embeddings,
            "tokens": plain.total_tokens,
            "one": client.embed(texts[0], model=model).embeddings,
            "without v1": voyageai.Client(api_key=key, base_url=url).embed(texts, model=model).embeddings,
            "async": asyncio.run(asynchronous()),
            "types": {
                dtype: client.embed(texts, model=model, output_dtype=dtype, output_dimension=64).embeddings
                for dtype in ("float", "int8", "uint8", "binary", "ubinary")
            },
            "chunks": [one.embeddings for one in chunks.results],
            "multimodal": multimodal.embeddings,
            "multimodal usage": [multimodal.text_tokens, multimodal.image_pixels, multimodal.video_pixels],
            "multimodal tokens": multimodal.total_tokens,
            "rerank": rerank(f"{url}/v1"),
            "rerank without v1": rerank(url),
            "long": error(lambda: client.embed(["a", "word " * 400], model=model, truncation=False)),
            "key": error(lambda: voyageai.Client(api_key="no", base_url=f"{url}/v1").embed(["a"], model=model)),
            "unknown": error(lambda: client.embed(["a"], model="voyage-9")),
            "documents": error(lambda: client.rerank("a", [], model)),
        }
    )
)
