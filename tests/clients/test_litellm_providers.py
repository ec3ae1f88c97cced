"""litellm's providers beside openai, each in its own dialect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lemni.engine import Engine
from lemni.server.app import create_app
from tests.clients import environments
from tests.clients.conftest import DOCUMENTS, KEY, MODEL, QUERY, TEXTS
from tests.server.live import listening, loaded, server_settings

Same = Callable[[object], None]
Vectors = NDArray[np.float32]

# Provider -> the end of its base URL, and what it needs besides.
EMBEDDINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "cohere": ("/v2/embed", {"encoding_format": "float"}),
    "hosted_vllm": ("/v1", {}),
    "huggingface": ("/embed", {"input_type": "embed"}),  # else litellm asks the hub what the model does
    "infinity": ("", {}),
    "jina_ai": ("/v1", {}),
    "nvidia_nim": ("/v1", {"input_type": "query", "truncate": "END"}),
    "voyage": ("/v1", {}),
}
MORE_EMBEDDINGS = {
    "cohere without a format": ("/v2/embed", {}),
    "cohere v1": ("/v1/embed", {"encoding_format": "float"}),
    "hosted_vllm without v1": ("", {}),
    "huggingface at the root": ("", {"input_type": "feature-extraction"}),
    "infinity with v1": ("/v1", {"encoding_format": "float"}),
    "voyage whole path": ("/v1/embeddings", {"input_type": "document"}),
}
DIMENSIONS = {
    "cohere": {"encoding_format": "float"},
    "hosted_vllm": {},
    "infinity": {},
    "jina_ai": {},
    "voyage": {},
}
RERANKS: dict[str, str] = {
    "cohere": "",
    "hosted_vllm": "/v1",  # without /v1 it clashes with infinity, see below
    "huggingface": "",
    "infinity": "",
    "jina_ai": "",
    "nvidia_nim": "",
    "voyage": "/v1",
}


def _calls(url: str, open_url: str, vllm_url: str) -> dict[str, dict[str, Any]]:
    """Every call by name: what kind it is, and litellm's arguments."""
    calls: dict[str, dict[str, Any]] = {}

    def embed(name: str, base: str, **more: Any) -> None:
        provider = name.split()[0]
        # Of a model with the organisation's whole name, this provider asks nothing but the similarity of sentences.
        model = MODEL.rpartition("/")[2] if provider == "huggingface" else MODEL
        given = {"model": f"{provider}/{model}", "input": TEXTS, "api_base": base, "api_key": KEY}
        calls[name] = {"kind": "embedding", **given, **more}

    def rerank(name: str, base: str, **more: Any) -> None:
        given = {"model": f"{name.split()[0]}/{MODEL}", "query": QUERY, "documents": DOCUMENTS, "api_key": KEY}
        calls[name] = {"kind": "rerank", "api_base": base, **given, **more}

    for name, (path, more) in {**EMBEDDINGS, **MORE_EMBEDDINGS}.items():
        embed(name, f"{url}{path}", **more)
    embed("ollama", open_url)  # it sends no key
    embed("ollama dimensions", open_url, dimensions=64)
    embed("ollama unknown model", open_url, model="ollama/nothing")
    for name, more in DIMENSIONS.items():
        embed(f"{name} dimensions", f"{url}{EMBEDDINGS[name][0]}", dimensions=64, **more)
    similarity = {"input_type": "sentence-similarity"}
    embed("huggingface similarity", url, input=[QUERY, *DOCUMENTS], **similarity)
    for name, (path, more) in EMBEDDINGS.items():
        embed(f"{name} unknown model", f"{url}{path}", model=f"{name}/nothing", **more)
        embed(f"{name} wrong key", f"{url}{path}", api_key="no", **more)
        embed(f"{name} too many", f"{url}{path}", input=["a"] * 9, **more)
    for name, path in RERANKS.items():
        rerank(f"{name} ranks", f"{url}{path}", top_n=2)
        rerank(f"{name} all", f"{url}{path}", return_documents=False)
        rerank(f"{name} defaults", f"{url}{path}")
        rerank(f"{name} async", f"{url}{path}", kind="arerank")
        rerank(f"{name} unknown reranker", f"{url}{path}", model=f"{name}/nothing")
        rerank(f"{name} no entry", f"{url}{path}", api_key="no")
    rerank("cohere v1 ranks", url, max_chunks_per_doc=9, top_n=2)
    rerank("jina_ai objects ranks", f"{url}/v1", documents=[{"text": text} for text in DOCUMENTS], top_n=2)
    rerank("nvidia_nim ranking", url, model=f"nvidia_nim/ranking/{MODEL}", top_n=2)
    rerank("nvidia_nim logits", open_url, model="nvidia_nim/ranker")
    rerank("infinity cross-encoder", open_url, model="infinity/ranker")
    # The same body at the same path: the setting `prefer` decides whose answer it gets.
    rerank("hosted_vllm at infinity's", url, top_n=2)
    rerank("hosted_vllm async at infinity's", url, kind="arerank")
    rerank("hosted_vllm preferred", vllm_url, top_n=2)
    rerank("hosted_vllm whole path", f"{vllm_url}/v1/rerank", top_n=2)
    rerank("infinity at vLLM's", vllm_url, top_n=2)
    rerank("infinity without documents at vLLM's", vllm_url, return_documents=False)
    return calls


@pytest.fixture(scope="module")
def vllm_server(engine: Engine) -> Iterator[str]:
    """Base URL of a server that prefers vLLM's answers to Infinity's."""
    with listening(create_app(loaded(engine), server_settings(api_key=KEY, prefer="vllm"))) as url:
        yield url


@pytest.fixture(scope="module")
def answers(server: str, open_server: str, vllm_server: str) -> dict[str, Any]:
    program = Path(__file__).with_name("litellm_providers_program.py")
    calls = _calls(server, open_server, vllm_server)
    result: dict[str, Any] = environments.run("litellm", program, {"calls": calls})
    return result


@pytest.mark.parametrize("case", [*EMBEDDINGS, *MORE_EMBEDDINGS, "ollama"])
def test_vectors(answers: dict[str, Any], same: Same, case: str) -> None:
    assert "vectors" in answers[case], answers[case]
    same(answers[case]["vectors"])
    assert answers[case]["tokens"] > 100


@pytest.mark.parametrize("name", [*DIMENSIONS, "ollama"])
def test_dimensions(answers: dict[str, Any], name: str, reference: Vectors) -> None:
    assert "vectors" in answers[f"{name} dimensions"], answers[f"{name} dimensions"]
    cut = reference[:, :64] / np.linalg.norm(reference[:, :64], axis=1, keepdims=True)
    np.testing.assert_allclose(answers[f"{name} dimensions"]["vectors"], cut, atol=1e-4)


def test_similarity(answers: dict[str, Any], cosines: Vectors) -> None:
    np.testing.assert_allclose(answers["huggingface similarity"]["vectors"], cosines, atol=1e-4)


@pytest.mark.parametrize("name", [*RERANKS, "cohere v1", "jina_ai objects"])
def test_ranks(answers: dict[str, Any], name: str, cosines: Vectors) -> None:
    """The documents come back too, as litellm asks unless told otherwise."""
    ranks = answers[f"{name} ranks"]
    assert isinstance(ranks, list), ranks
    best = np.argsort(-cosines)[:2].tolist()
    assert [[index, document] for index, _, document in ranks] == [[index, DOCUMENTS[index]] for index in best]
    np.testing.assert_allclose([score for _, score, _ in ranks], cosines[best], atol=1e-4)


@pytest.mark.parametrize("case", ["all", "defaults", "async"])
@pytest.mark.parametrize("name", RERANKS)
def test_ranks_of_all_documents(answers: dict[str, Any], name: str, case: str, cosines: Vectors) -> None:
    ranks = answers[f"{name} {case}"]
    assert isinstance(ranks, list), ranks
    order = np.argsort(-cosines).tolist()
    assert [index for index, *_ in ranks] == order
    np.testing.assert_allclose([score for _, score, _ in ranks], cosines[order], atol=1e-4)


def test_nvidia_s_other_path(answers: dict[str, Any]) -> None:
    assert answers["nvidia_nim ranking"] == answers["nvidia_nim ranks"]


def test_scores_of_a_cross_encoder(answers: dict[str, Any], relevance: Vectors) -> None:
    """NVIDIA's are logits, Infinity's are between 0 and 1."""
    order = np.argsort(-relevance).tolist()
    for case, expected in (
        ("nvidia_nim logits", relevance),
        ("infinity cross-encoder", 1 / (1 + np.exp(-relevance))),
    ):
        assert [index for index, *_ in answers[case]] == order
        np.testing.assert_allclose([score for _, score, _ in answers[case]], expected[order], atol=1e-4)


@pytest.mark.parametrize("case", ["hosted_vllm preferred", "hosted_vllm whole path"])
def test_vllm_may_be_preferred_at_the_path_that_it_shares_with_infinity(answers: dict[str, Any], case: str) -> None:
    assert answers[case] == answers["hosted_vllm ranks"]


def test_the_other_of_the_two_cannot_read_the_documents(answers: dict[str, Any]) -> None:
    """Infinity's are strings, vLLM's objects. Without documents there is no difference."""
    for case in ("hosted_vllm at infinity's", "infinity at vLLM's"):
        assert "error" in answers[case], answers[case]
    assert answers["infinity without documents at vLLM's"] == answers["infinity all"]
    assert answers["hosted_vllm async at infinity's"] == answers["infinity all"]  # it asks for none


def refused(answer: Any, error: str, says: str) -> None:
    assert "error" in answer, answer
    assert answer["error"] == error
    assert says in answer["message"]


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_errors_of_embeddings(answers: dict[str, Any], name: str) -> None:
    refused(answers[f"{name} wrong key"], "AuthenticationError", "API key is wrong")
    if name == "huggingface":  # names no model, and has no row for 422
        refused(answers[f"{name} too many"], "APIError", "maximum allowed batch size 8")
    else:
        refused(answers[f"{name} unknown model"], "NotFoundError", "not served here")
        refused(answers[f"{name} too many"], "BadRequestError", "at most 8")


@pytest.mark.parametrize("name", RERANKS)
def test_errors_of_rerankers(answers: dict[str, Any], name: str) -> None:
    refused(answers[f"{name} no entry"], "AuthenticationError", "API key is wrong")
    if name != "huggingface":
        refused(answers[f"{name} unknown reranker"], "NotFoundError", "not served here")


def test_errors_of_ollama(answers: dict[str, Any]) -> None:
    refused(answers["ollama unknown model"], "NotFoundError", "not served here")
