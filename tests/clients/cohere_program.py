"""Runs in the environment `clients`: Cohere's client, v1 and v2, sync and async; prints what it gives, as JSON."""

import asyncio
import json
import sys

import cohere

arguments = json.loads(sys.argv[1])
url, key, model, texts = (arguments[name] for name in ("url", "key", "model", "texts"))
v1 = cohere.Client(api_key=key, base_url=url)
v2 = cohere.ClientV2(api_key=key, base_url=url)
types = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
once = {"request_options": {"max_retries": 0}}


def by_type(answer):
    found = answer.embeddings
    return {"float": found.float_, **{name: getattr(found, name) for name in types[1:]}}


def ranks(answer):
    return [[one.index, one.relevance_score] for one in answer.results]


def error(call):
    try:
        call()
    except cohere.core.ApiError as raised:
        return {"class": type(raised).__name__, "status": raised.status_code, "body": raised.body}


async def asynchronous():
    async with cohere.AsyncClientV2(api_key=key, base_url=url) as client:
        answer = await client.embed(texts=texts, model=model, input_type="search_query")
        return answer.embeddings.float_


plain = v1.embed(texts=texts, model=model, input_type="search_document")
# 97 texts are split into two requests, whose answers it joins.
many = cohere.Client(api_key=key, base_url=arguments["roomy"]).embed(
    texts=[texts[0]] * 97, model=model, input_type="search_document"
)
query, documents = arguments["query"], arguments["documents"]
fields = [{"text": text, "t": "x"} for text in documents]
ranked = v1.rerank(query=query, documents=fields, model=model, rank_fields=["text"], return_documents=True)
tokens = v1.tokenize(text=documents[0], model=model, offline=False)
examples = [cohere.ClassifyExample(**one) for one in arguments["examples"]]
classified = v1.classify(inputs=documents, model=model, examples=examples)
print(
    json.dumps(
        {
            "v1": plain.embeddings,
            "v1 texts": plain.texts,
            "v1 tokens": plain.meta.billed_units.input_tokens,
            "v1 types": by_type(
                v1.embed(texts=texts, model=model, input_type="search_document", embedding_types=types)
            ),
            "v1 many": [
                len(many.embeddings),
                many.embeddings[0] == many.embeddings[96],
                many.meta.billed_units.input_tokens,
            ],
            "v2": v2.embed(texts=texts, model=model, input_type="search_query").embeddings.float_,
            "v2 types": by_type(
                v2.embed(texts=texts, model=model, input_type="clustering", embedding_types=types, output_dimension=64)
            ),
            "v2 inputs": v2.embed(
                inputs=[{"content": [{"type": "text", "text": text}]} for text in texts],
                model=model,
                input_type="search_document",
                embedding_types=["float"],
            ).embeddings.float_,
            "async": asyncio.run(asynchronous()),
            "v1 ranked": ranks(ranked),
            "v1 document": ranked.results[0].document.text,
            "v2 ranked": ranks(
                v2.rerank(query=query, documents=documents, model=model, top_n=2, max_tokens_per_doc=100)
            ),
            "mistaken base": ranks(
                cohere.ClientV2(api_key=key, base_url=f"{url}/v1").rerank(query=query, documents=documents, model=model)
            ),
            "tokens": tokens.tokens,
            "text": v1.detokenize(tokens=tokens.tokens, model=model, offline=False).text,
            "classes": [[one.prediction, one.confidence, sorted(one.labels)] for one in classified.classifications],
            "models": [[one.name, one.endpoints, one.context_length] for one in v1.models.list().models],
            "model": v1.models.get(model).name,
            "unknown": error(lambda: v2.embed(texts=["a"], model="no", input_type="search_query", **once)),
            "empty": error(lambda: v2.embed(texts=[], model=model, input_type="search_query", **once)),
            "key": error(
                lambda: cohere.ClientV2(api_key="no", base_url=url).embed(
                    texts=["a"], model=model, input_type="search_query", **once
                )
            ),
            "rerank": error(lambda: v1.rerank(query="a", documents=[], model=model, **once)),
        }
    )
)
