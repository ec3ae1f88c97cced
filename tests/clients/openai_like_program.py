"""Runs in the environment `clients`: LlamaIndex's, Haystack's and LangChain's embedders over OpenAI's and Hugging
Face's APIs; prints what they give, as JSON."""

import asyncio
import json
import logging
import sys

from haystack import Document
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.utils import Secret
from huggingface_hub import InferenceClient
from langchain_huggingface import HuggingFaceEndpointEmbeddings
from llama_index.embeddings.openai_like import OpenAILikeEmbedding

arguments = json.loads(sys.argv[1])
url, key, model, texts = arguments["url"], arguments["key"], arguments["model"], arguments["texts"]
logging.disable(logging.CRITICAL)  # Haystack logs an error of the server and goes on


def llama_index(**changes):
    given = {"model_name": model, "api_base": f"{url}/v1", "api_key": key, "max_retries": 0, "embed_batch_size": 4}
    return OpenAILikeEmbedding(**{**given, **changes})


def haystack(cls, **changes):
    given = {"api_key": Secret.from_token(key), "model": model, "api_base_url": f"{url}/v1", "max_retries": 0}
    return cls(**{**given, **changes})


def documents(contents, **changes):
    embedder = haystack(OpenAIDocumentEmbedder, progress_bar=False, batch_size=4, **changes)
    answer = embedder.run([Document(content=text, meta={"n": n}) for n, text in enumerate(contents)])
    return {"vectors": [one.embedding for one in answer["documents"]], "meta": answer["meta"]}


def langchain(token=key):
    # It takes no URL, so it gets a client that has one.
    embeddings = HuggingFaceEndpointEmbeddings(model="some/model", huggingfacehub_api_token=token)
    embeddings.client, embeddings.model = InferenceClient(base_url=url, token=token), None
    return embeddings


def refused(call):
    try:
        return {"answer": str(call())}
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}


text_embedder = haystack(OpenAITextEmbedder)
cut = llama_index(dimensions=64, additional_kwargs={"extra_body": {"truncate": True}})
exact = llama_index(additional_kwargs={"extra_body": {"truncate": False}})

print(
    json.dumps(
        {
            "llama_index texts": llama_index().get_text_embedding_batch(texts),
            "llama_index queries": [llama_index().get_query_embedding(text) for text in texts],
            "llama_index async": asyncio.run(llama_index().aget_text_embedding_batch(texts)),
            "llama_index without v1": llama_index(api_base=url).get_text_embedding_batch(texts),
            "llama_index dimensions": cut.get_text_embedding_batch(texts),
            "llama_index unknown model": refused(lambda: llama_index(model_name="nothing").get_query_embedding("a")),
            "llama_index wrong key": refused(lambda: llama_index(api_key="no").get_query_embedding("a")),
            "llama_index too many": refused(
                lambda: llama_index(embed_batch_size=9).get_text_embedding_batch(["a"] * 9)
            ),
            "llama_index too long": refused(lambda: exact.get_query_embedding("long " * 500)),
            "haystack texts": [text_embedder.run(text)["embedding"] for text in texts],
            "haystack meta": text_embedder.run(texts[0])["meta"],
            "haystack documents": documents(texts),
            "haystack dimensions": documents(texts, dimensions=64),
            "haystack unknown model": refused(lambda: haystack(OpenAITextEmbedder, model="nothing").run("a")),
            "haystack wrong key": refused(
                lambda: haystack(OpenAITextEmbedder, api_key=Secret.from_token("no")).run("a")
            ),
            "haystack silent": documents(["a"], model="nothing"),
            "haystack loud": refused(lambda: documents(["a"], model="nothing", raise_on_failure=True)),
            "langchain documents": langchain().embed_documents(texts),
            "langchain queries": [langchain().embed_query(text) for text in texts],
            "langchain wrong key": refused(lambda: langchain("no").embed_documents(["a"])),
            "langchain too many": refused(lambda: langchain().embed_documents(["a"] * 9)),
        }
    )
)
