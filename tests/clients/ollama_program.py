"""Runs in the environment `clients`: Ollama's client and the classes of LangChain and LlamaIndex for it; prints what
they give, as JSON."""

import asyncio
import json
import sys

import ollama
from langchain_ollama import OllamaEmbeddings
from llama_index.embeddings.ollama import OllamaEmbedding

arguments = json.loads(sys.argv[1])
url, model, texts = arguments["url"], arguments["model"], arguments["texts"]
headers = {"Authorization": f"Bearer {arguments['key']}"}
client = ollama.Client(host=url, headers=headers)
checked = {"base_url": url, "client_kwargs": {"headers": headers}, "validate_model_on_init": True}
langchain = OllamaEmbeddings(model=model, **checked)
short = OllamaEmbeddings(model=model, base_url=url, client_kwargs={"headers": headers}, dimensions=64, keep_alive=300)
llama_index = OllamaEmbedding(model_name=model, base_url=url, client_kwargs={"headers": headers}, embed_batch_size=4)


def refused(call):
    try:
        return {"answer": str(call())}
    except ollama.ResponseError as error:
        return {"status": error.status_code, "error": error.error}


def embed(**changes):
    return client.embed(**{"model": model, "input": texts, **changes}).model_dump()


async def embed_async():
    return (await ollama.AsyncClient(host=url, headers=headers).embed(model=model, input=texts)).model_dump()


print(
    json.dumps(
        {
            "embed": embed(),
            "embed async": asyncio.run(embed_async()),
            "embed with a tag": embed(model=f"{model}:latest"),
            "embed one": embed(input=texts[0]),
            "embed options": embed(dimensions=64, truncate=True, options={"num_ctx": 512}, keep_alive="5m"),
            "embeddings": [client.embeddings(model=model, prompt=text).embedding for text in texts if text],
            "list": client.list().model_dump(mode="json"),
            "show": client.show(model).model_dump(mode="json"),
            "ps": client.ps().model_dump(mode="json"),
            "langchain documents": langchain.embed_documents(texts),
            "langchain queries": [
                OllamaEmbeddings(model=f"{model}:latest", **checked).embed_query(text) for text in texts
            ],
            "langchain async": asyncio.run(langchain.aembed_documents(texts)),
            "langchain short": short.embed_documents(texts),
            "llama_index texts": llama_index.get_text_embedding_batch(texts),
            "llama_index queries": [llama_index.get_query_embedding(text) for text in texts if text],
            "llama_index async": asyncio.run(llama_index.aget_text_embedding_batch(texts)),
            "unknown model": refused(lambda: embed(model="nothing")),
            "unknown model shown": refused(lambda: client.show("nothing")),
            "wrong key": refused(lambda: ollama.Client(host=url).embed(model=model, input="a")),
            "too many items": refused(lambda: embed(input=["a"] * 9)),
            "too long": refused(lambda: embed(input="long " * 500, truncate=False)),
            "not served": refused(lambda: client.generate(model=model, prompt="a")),
            "not pulled": refused(lambda: client.pull("nothing")),
        }
    )
)
