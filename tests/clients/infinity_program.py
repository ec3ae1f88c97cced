"""Runs in the environment `older-clients`: infinity-client and the classes of LangChain that speak Infinity's, Jina's
and Hugging Face's APIs; prints what they give, as JSON."""

import asyncio
import base64
import io
import json
import sys

import langchain_community.document_compressors.jina_rerank as jina_rerank
import langchain_community.embeddings.jina as jina_embeddings
from infinity_client import AuthenticatedClient, Client
from infinity_client.api.default import classify, embeddings, embeddings_image, health, models, rerank
from infinity_client.errors import UnexpectedStatus
from infinity_client.models import (
    ClassifyInput,
    ImageEmbeddingInput,
    OpenAIEmbeddingInputImage,
    OpenAIEmbeddingInputText,
    RerankInput,
)
from infinity_client.vision_client import InfinityVisionAPI
from langchain_community.document_compressors import InfinityRerank, JinaRerank
from langchain_community.embeddings import HuggingFaceInferenceAPIEmbeddings, InfinityEmbeddings, JinaEmbeddings
from langchain_core.documents import Document
from PIL import Image

arguments = json.loads(sys.argv[1])
url, key, model, texts = arguments["url"], arguments["key"], arguments["model"], arguments["texts"]
several, query, documents = arguments["open"], arguments["query"], arguments["documents"]
client = AuthenticatedClient(base_url=url, token=key, raise_on_unexpected_status=True)
open_client = Client(base_url=several, raise_on_unexpected_status=True)


def embed(cls=OpenAIEmbeddingInputText, *, call=embeddings, client=client, **fields):
    answer = call.sync(client=client, body=cls(**{"input_": texts, "model": model, **fields}))
    tokens = [answer.usage.prompt_tokens, answer.usage.total_tokens]
    indices = [one.index for one in answer.data]
    return {"vectors": [one.embedding for one in answer.data], "indices": indices, "tokens": tokens}


async def embed_async():
    own = AuthenticatedClient(base_url=url, token=key)
    answer = await embeddings.asyncio(client=own, body=OpenAIEmbeddingInputText(input_=texts, model=model))
    return [one.embedding for one in answer.data]


def ranks(client=client, **fields):
    body = RerankInput(query=query, documents=documents, **fields)
    return [[one.index, one.relevance_score, one.document] for one in rerank.sync(client=client, body=body).results]


def labels(**fields):
    body = ClassifyInput(input_=["a cat sat", "dogs"], model="labels", **fields)
    return [[[one.label, one.score] for one in row] for row in classify.sync(client=open_client, body=body).data]


def refused(call):
    try:
        return {"answer": str(call())}
    except UnexpectedStatus as error:
        return {"status": error.status_code, "message": json.loads(error.content)["error"]["message"]}
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}


picture = Image.new("RGB", (40, 40), (200, 30, 90))
file = io.BytesIO()
picture.save(file, "PNG")
image = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
vision = InfinityVisionAPI(url=several, model="clip")


def seen(future):
    rows, tokens = future.result()
    return {"vectors": [row.tolist() for row in rows], "tokens": tokens}


def compressed(compressor):
    found = compressor.compress_documents([Document(page_content=text) for text in documents], query)
    return [[one.page_content, one.metadata["relevance_score"]] for one in found]


jina_embeddings.JINA_API_URL = f"{url}/v1/embeddings"
jina_rerank.JINA_API_URL = f"{url}/v1/rerank"
bearer = {"Authorization": f"Bearer {key}"}
infinity = InfinityEmbeddings(model=model, infinity_api_url=several)
hugging_face = HuggingFaceInferenceAPIEmbeddings(api_key=key, api_url=f"{url}/embed", model_name=model)

print(
    json.dumps(
        {
            "embed": embed(),
            "embed async": asyncio.run(embed_async()),
            "embed image": embed(OpenAIEmbeddingInputImage, client=open_client, input_=[image] * 2, model="clip"),
            "embeddings_image": embed(
                ImageEmbeddingInput, call=embeddings_image, client=open_client, input_=image, model="clip"
            ),
            "vision images": seen(vision.image_embed(model="clip", images=[picture])),
            "vision texts": seen(vision.embed(model="clip", sentences=["a cat"])),
            "rerank": ranks(model=model, return_documents=True),
            "rerank without a model": ranks(),
            "rerank top": ranks(model=model, top_n=2),
            "rerank cross-encoder": ranks(open_client, model="ranker"),
            "rerank raw": ranks(open_client, model="ranker", raw_scores=True),
            "classify": labels(),
            "classify raw": labels(raw_scores=True),
            "models": models.sync(client=open_client).to_dict(),
            "health": health.sync(client=client).to_dict(),
            "unknown model": refused(lambda: embed(model="nothing")),
            "unknown reranker": refused(lambda: ranks(model="nothing")),
            "wrong key": refused(lambda: embed(client=AuthenticatedClient(url, "no", raise_on_unexpected_status=True))),
            "too many items": refused(lambda: embed(input_=["a"] * 9)),
            "not a classifier": refused(
                lambda: classify.sync(client=client, body=ClassifyInput(input_=["a"], model=model))
            ),
            "langchain infinity": infinity.embed_documents(texts),
            "langchain infinity query": infinity.embed_query(texts[0]),
            "langchain infinity async": asyncio.run(infinity.aembed_documents(texts)),
            "langchain infinity unknown": refused(
                lambda: InfinityEmbeddings(model="nothing", infinity_api_url=several).embed_query("a")
            ),
            "langchain infinity without key": refused(
                lambda: InfinityEmbeddings(model=model, infinity_api_url=url).embed_query("a")
            ),
            "langchain jina": JinaEmbeddings(jina_api_key=key, model_name=model).embed_documents(texts),
            "langchain jina unknown": refused(
                lambda: JinaEmbeddings(jina_api_key=key, model_name="nothing").embed_documents(["a"])
            ),
            "langchain jina too many": refused(
                lambda: JinaEmbeddings(jina_api_key=key, model_name=model).embed_documents(["a"] * 9)
            ),
            "langchain hugging face": hugging_face.embed_documents(texts),
            "langchain hugging face query": hugging_face.embed_query(texts[0]),
            "langchain infinity rerank": compressed(
                InfinityRerank(client=Client(base_url=url, headers=bearer), model=model, top_n=2)
            ),
            "langchain jina rerank": compressed(JinaRerank(jina_api_key=key, model=model, top_n=2)),
            "langchain jina rerank unknown": refused(
                lambda: compressed(JinaRerank(jina_api_key=key, model="nothing", top_n=2))
            ),
            "langchain jina rerank without key": refused(
                lambda: compressed(JinaRerank(jina_api_key="no", model=model, top_n=2))
            ),
        }
    )
)
