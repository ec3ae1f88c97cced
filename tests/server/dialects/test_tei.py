"""TEI's routes, and Hugging Face's at the root: the real default model, and tiny ones for what it does not do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import transformers as hf

from lemni import hub
from lemni.config import EngineSettings
from lemni.engine import Engine
from lemni.server.app import create_app
from tests.engine.toy import Gate, ToyModel, engine_of, request
from tests.server.conftest import client_of
from tests.server.live import PATIENCE_S, loaded, server_settings
from tests.tasks.classifiers import load, save_classifier
from tests.tasks.sparse_models import splade

CATS = ["A cat sits on the mat.", "Die Börse fiel.", "", "word " * 400]


async def post(client: httpx.AsyncClient, path: str, body: Any, status: int = 200) -> Any:
    answer = await client.post(path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def refused(client: httpx.AsyncClient, path: str, body: Any, status: int, kind: str) -> str:
    """The message of an error that has TEI's two fields."""
    answer = await post(client, path, body, status)
    assert answer.keys() == {"error", "error_type"}
    assert answer["error_type"] == kind
    message: str = answer["error"]
    return message


async def vectors(client: httpx.AsyncClient, body: dict[str, Any]) -> Any:
    return np.array(await post(client, "/embed", body), np.float32)


class TestEmbed:
    async def test_a_bare_list_of_unit_vectors(self, real: httpx.AsyncClient) -> None:
        plain = await post(real, "/v1/embeddings", {"input": CATS, "normalize": True})
        found = await vectors(real, {"inputs": CATS})
        np.testing.assert_array_equal(found, np.float32([one["embedding"] for one in plain["data"]]))
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)

    async def test_one_text_is_a_list_of_one_vector(self, real: httpx.AsyncClient) -> None:
        one = await vectors(real, {"inputs": CATS[0], "options": {"wait_for_model": True}, "prompt_name": None})
        assert one.shape == (1, 384)
        ids = [101, 1037, 4937, 7719, 2006, 1996, 13523, 1012, 102]
        for same in (ids, [ids], [CATS[0]]):
            np.testing.assert_allclose(await vectors(real, {"inputs": same}), one, atol=1e-6)
        mixed = await vectors(real, {"inputs": [ids, "other", CATS[0]]})
        np.testing.assert_allclose(mixed[[0, 2]], one[[0, 0]], atol=1e-6)

    async def test_raw_vectors_and_dimensions(self, real: httpx.AsyncClient) -> None:
        unit = await vectors(real, {"inputs": CATS[:2]})
        raw = await vectors(real, {"inputs": CATS[:2], "normalize": False})
        norms = np.linalg.norm(raw, axis=1, keepdims=True)
        assert (np.abs(norms - 1) > 0.1).all()
        np.testing.assert_allclose(raw / norms, unit, atol=1e-6)
        short = await vectors(real, {"inputs": CATS[:2], "dimensions": 10})
        cut = unit[:, :10] / np.linalg.norm(unit[:, :10], axis=1, keepdims=True)
        np.testing.assert_allclose(short, cut, atol=1e-6)

    async def test_truncation(self, real: httpx.AsyncClient) -> None:
        start, end = "alpha " * 300, "omega " * 300
        right, left = await vectors(real, {"inputs": [start, end]})
        default = await vectors(real, {"inputs": start + end})
        np.testing.assert_allclose(default[0], right, atol=1e-5)
        for body in ({"truncation_direction": "Left"}, {"truncate": True, "truncation_direction": "left"}):
            found = await vectors(real, {"inputs": start + end, **body})
            np.testing.assert_allclose(found[0], left, atol=1e-5)
        message = await refused(real, "/embed", {"inputs": ["a", start], "truncate": False}, 422, "Validation")
        assert "inputs[1]" in message
        assert "at most 256" in message
        answer = await real.post("/embed", json={"inputs": ["a", start]})
        assert answer.headers["x-lemni-truncated"] == "1"

    async def test_headers(self, real: httpx.AsyncClient) -> None:
        answer = await real.post("/embed", json={"inputs": ["hé", [101, 1037, 102]]})
        headers = answer.headers
        assert (headers["x-compute-characters"], headers["x-compute-tokens"]) == ("2", "6")
        assert headers["x-compute-type"] == "cpu+optimized"
        parts = [int(headers[f"x-{name}-time"]) for name in ("tokenization", "queue", "inference")]
        assert 0 <= max(parts) <= int(headers["x-total-time"]) == int(headers["x-compute-time"])


async def test_every_token(real: httpx.AsyncClient, minilm: hub.ModelFiles) -> None:
    tokenizer = hf.AutoTokenizer.from_pretrained(minilm.path)
    model = hf.AutoModel.from_pretrained(minilm.path).eval()
    found = await post(real, "/embed_all", {"inputs": CATS[:3]})
    for text, ours in zip(CATS[:3], found, strict=True):
        with torch.no_grad():
            [expected] = model(**tokenizer(text, return_tensors="pt")).last_hidden_state.numpy()
        np.testing.assert_allclose(np.array(ours), expected, atol=1e-4)


class TestRerank:
    QUERY = "Where do cats sleep?"
    TEXTS = ("Rust is a language.", "Cats sleep on the sofa.", "")

    async def test_sorted_with_texts_if_asked(self, real: httpx.AsyncClient) -> None:
        body = {"query": self.QUERY, "texts": list(self.TEXTS)}
        found = await post(real, "/rerank", {**body, "top_n": None, "raw_scores": False})
        assert found[0].keys() == {"index", "score"}
        assert sorted(one["index"] for one in found) == [0, 1, 2]
        assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)
        query, *texts = await vectors(real, {"inputs": [self.QUERY, *self.TEXTS]})
        assert found[0]["index"] == 1
        for one in found:
            assert one["score"] == pytest.approx(float(query @ texts[one["index"]]), abs=1e-5)
        assert await post(real, "/rerank", {**body, "top_n": 2}) == found[:2]
        shown = await post(real, "/rerank", {**body, "return_text": True})
        assert [one["text"] for one in shown] == [self.TEXTS[one["index"]] for one in found]

    @pytest.mark.parametrize("key", ["top_k", "truncation", "truncate_prompt_tokens", "use_activation"])
    async def test_texts_are_tei_s_beside_keys_of_others(self, real: httpx.AsyncClient, key: str) -> None:
        body = {"query": self.QUERY, "texts": list(self.TEXTS)}
        assert await post(real, "/rerank", {**body, key: None}) == await post(real, "/rerank", body)

    async def test_documents_are_another_dialect_s(self, real: httpx.AsyncClient) -> None:
        answer = await post(real, "/rerank", {"query": self.QUERY, "documents": list(self.TEXTS)})
        assert answer["results"][0]["relevance_score"] > 0.5

    async def test_errors(self, real: httpx.AsyncClient) -> None:
        assert "texts[1]" in await refused(real, "/rerank", {"query": "a", "texts": ["a", 3]}, 422, "Validation")
        assert "query" in await refused(real, "/rerank", {"texts": ["a"]}, 422, "Validation")
        await refused(real, "/rerank", {"query": "a", "texts": []}, 400, "Empty")
        message = await refused(real, "/rerank", {"query": "a", "texts": ["a"] * 9}, 422, "Validation")
        assert message == "batch size 9 > maximum allowed batch size 8"


async def test_similarity_is_the_cosine(real: httpx.AsyncClient) -> None:
    inputs = {"source_sentence": CATS[0], "sentences": CATS}
    found = await post(real, "/similarity", {"inputs": inputs, "parameters": {"truncation_direction": "Right"}})
    units = await vectors(real, {"inputs": CATS})
    np.testing.assert_allclose(found, units @ units[0], atol=1e-5)
    too_many = {"inputs": {"source_sentence": "a", "sentences": ["a"] * 8}}
    assert "batch size 9" in await refused(real, "/similarity", too_many, 422, "Validation")
    nothing = {"inputs": {"source_sentence": "a", "sentences": []}}
    await refused(real, "/similarity", nothing, 400, "Empty")
    assert "inputs.sentences.1" in await refused(
        real, "/similarity", {"inputs": {"source_sentence": "a", "sentences": ["a", 1]}}, 422, "Validation"
    )


class TestTokens:
    TEXTS = ("A càt, 日本 🙂!", "plain words", "")

    @pytest.mark.parametrize("special", [True, False])
    async def test_tokens_and_byte_offsets(
        self, real: httpx.AsyncClient, minilm: hub.ModelFiles, special: bool
    ) -> None:
        body = {"inputs": list(self.TEXTS), "add_special_tokens": special}
        found = await post(real, "/tokenize", body)
        tokenizer = hf.AutoTokenizer.from_pretrained(minilm.path)
        for text, tokens in zip(self.TEXTS, found, strict=True):
            assert [token["id"] for token in tokens] == tokenizer.encode(text, add_special_tokens=special)
            data = text.encode()
            for token in tokens:
                if token["special"]:
                    assert (token["start"], token["stop"]) == (None, None)
                    assert token["text"] in ("[CLS]", "[SEP]")
                else:
                    assert data[token["start"] : token["stop"]].decode() == token["text"]
            assert [token["special"] for token in tokens].count(True) == 2 * special
        assert [token["text"] for token in found[0] if not token["special"]] == ["A", "càt", ",", "日", "本", "🙂", "!"]

    async def test_one_text_and_default(self, real: httpx.AsyncClient) -> None:
        [tokens] = await post(real, "/tokenize", {"inputs": "a cat"})
        assert [token["id"] for token in tokens] == [101, 1037, 4937, 102]

    async def test_decode(self, real: httpx.AsyncClient) -> None:
        ids = [101, 1037, 4937, 102]
        assert await post(real, "/decode", {"ids": ids}) == ["a cat"]
        shown = await post(real, "/decode", {"ids": [ids, [4937], []], "skip_special_tokens": False})
        assert shown == ["[CLS] a cat [SEP]", "cat", ""]

    async def test_errors(self, real: httpx.AsyncClient) -> None:
        body = {"inputs": "a", "prompt_name": "$NONE$"}
        assert "Available prompts: []" in await refused(real, "/tokenize", body, 422, "Validation")
        assert "inputs[1]" in await refused(real, "/tokenize", {"inputs": ["a", None]}, 422, "Validation")
        for ids, kind in (
            ([30522], "Tokenizer"),
            ([[1], [-1]], "Tokenizer"),
            (["a"], "Tokenizer"),
            ("a", "Validation"),
        ):
            assert "ids" in await refused(real, "/decode", {"ids": ids}, 422, kind)
        await refused(real, "/decode", {"ids": []}, 400, "Empty")


class TestErrors:
    @pytest.mark.parametrize(
        ("path", "body", "status", "kind", "says"),
        [
            ("/embed", {"inputs": []}, 400, "Empty", "inputs"),
            ("/embed", {"inputs": ["a"] * 9}, 422, "Validation", "batch size 9 > maximum allowed batch size 8"),
            ("/embed", {"inputs": ["a", 1.5]}, 422, "Validation", "inputs[1]"),
            ("/embed", {"inputs": "a", "dimensions": 385}, 422, "Validation", "385"),
            ("/embed", {"inputs": "a", "truncation_direction": "up"}, 422, "Validation", "truncation_direction"),
            ("/embed", {"inputs": "a", "prompt_name": "query"}, 422, "Validation", "query"),
            ("/embed", {"inputs": [[101, 40000]]}, 422, "Tokenizer", "40000"),
            ("/embed", {"inputs": "a", "model": "nothing"}, 404, "Validation", "nothing"),
            ("/embed_all", {}, 422, "Validation", "inputs is missing"),
            ("/embed_sparse", {"inputs": "a"}, 424, "Backend", "sparse embeddings"),
            ("/predict", {"inputs": "a"}, 424, "Backend", "classification"),
            ("/", {"model": "nothing"}, 422, "Validation", "inputs is missing"),
        ],
    )
    async def test_bodies(
        self, real: httpx.AsyncClient, path: str, body: dict[str, Any], status: int, kind: str, says: str
    ) -> None:
        assert says in await refused(real, path, body, status, kind)

    async def test_no_or_several_keys_on_the_shared_path(self, real: httpx.AsyncClient) -> None:
        for body in ({}, {"inputs": "a", "text": "a"}, {"inputs": "a", "texts": ["a"]}):
            message = (await post(real, "/embed", body, 422))["error"]
            assert "inputs, text and texts" in message

    async def test_a_full_queue(self, toy: ToyModel) -> None:
        toy.gates[9] = gate = Gate()
        with engine_of(toy, max_queue_tokens=20) as engine:
            held = [engine.submit("toy", request("9"))]
            gate.wait_entered()
            held.append(engine.submit("toy", request("1 " * 18)))
            async with client_of(create_app(loaded(engine), server_settings())) as client:
                await refused(client, "/embed", {"inputs": "5 5 5"}, 429, "Overloaded")
            gate.open()
            for one in held:
                one.result(PATIENCE_S)

    async def test_a_failed_computation_hides_its_text(self, client: httpx.AsyncClient, toy: ToyModel) -> None:
        toy.raises = {13}
        message = await refused(client, "/embed", {"inputs": ["1", "13"]}, 424, "Backend")
        assert "cannot compute" not in message

    async def test_unavailable(self, toy_engine: Engine) -> None:
        async with client_of(create_app(loaded(toy_engine), server_settings())) as client:
            assert (await client.get("/ping")).status_code == 200
            assert (await client.get("/ping")).content == b""
            toy_engine.drain(0)
            await refused(client, "/embed", {"inputs": "1"}, 503, "Unhealthy")
            answer = await client.get("/ping")
            assert (answer.status_code, answer.json()["error_type"]) == (503, "Unhealthy")

    async def test_the_key(self, toy_engine: Engine) -> None:
        async with client_of(create_app(loaded(toy_engine), server_settings(api_key="sk"))) as client:
            for path in ("/", "/similarity", "/invocations", "/vertex"):
                answer = await client.post(path, json={"inputs": "a"})
                assert answer.status_code == 401, path
                assert answer.json()["error_type"] == "Validation"
            assert (await client.get("/info")).status_code == 401
            for path in ("/", "/ping"):
                assert (await client.get(path)).status_code == 200


class TestInfo:
    async def test_an_embedding_model(self, real: httpx.AsyncClient) -> None:
        info = (await real.get("/info")).json()
        assert info["model_type"] == {"embedding": {"pooling": "mean"}}
        assert info["model_id"] == info["model_name"] == "sentence-transformers/all-MiniLM-L6-v2"
        assert (info["model_dtype"], info["auto_truncate"], info["max_client_batch_size"]) == ("float32", True, 8)
        assert info["max_input_length"] == info["max_seq_length"] == 256
        assert (info["embedding_dimension"], info["device"]) == (384, "cpu")
        for name in ("max_concurrent_requests", "max_batch_tokens", "tokenization_workers"):
            assert info[name] > 0

    async def test_a_classifier_and_a_reranker(self, tiny: httpx.AsyncClient) -> None:
        labels = (await tiny.get("/info", params={"model": "labels"})).json()
        names = ["label 0", "label 1", "label 2"]
        assert labels["model_type"] == {
            "classifier": {
                "id2label": {str(at): name for at, name in enumerate(names)},
                "label2id": {name: at for at, name in enumerate(names)},
            }
        }
        ranker = (await tiny.get("/info", params={"model": "ranker"})).json()
        assert ranker["model_type"].keys() == {"reranker"}


@pytest.fixture(scope="module")
def tiny_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, dict[str, Path]]]:
    folders = {name: tmp_path_factory.mktemp(name) for name in ("labels", "ranker")}
    save_classifier(folders["labels"], "bert", 3)
    save_classifier(folders["ranker"], "bert", 1)
    models = {name: load(folder, served_name=name) for name, folder in folders.items()}
    with Engine(models, EngineSettings()) as engine:
        yield engine, folders
    for model in models.values():
        model.close()


@pytest.fixture
async def tiny(tiny_engine: tuple[Engine, dict[str, Path]]) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(create_app(loaded(tiny_engine[0]), server_settings())) as client:
        yield client


def logits(folder: Path, *texts: str) -> Any:
    """What transformers gives: [labels]."""
    model = hf.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return model(**tokenizer(*texts, return_tensors="pt", truncation=True)).logits[0]


class TestPredict:
    async def test_a_text_a_pair_and_batches(
        self, tiny: httpx.AsyncClient, tiny_engine: tuple[Engine, dict[str, Path]]
    ) -> None:
        folder = tiny_engine[1]["labels"]
        one, pair = ["hello world"], ["the cat", "sat on the mat"]

        def expected(texts: list[str], raw: bool = False) -> dict[str, float]:
            values = logits(folder, *texts) if raw else logits(folder, *texts).softmax(0)
            return {f"label {at}": pytest.approx(float(value), abs=1e-4) for at, value in enumerate(values)}

        def by_label(found: Any) -> dict[str, float]:
            scores = [entry["score"] for entry in found]
            assert scores == sorted(scores, reverse=True)
            return {entry["label"]: entry["score"] for entry in found}

        body = {"model": "labels"}
        for inputs in (one[0], one):
            assert by_label(await post(tiny, "/predict", {**body, "inputs": inputs})) == expected(one)
        assert by_label(await post(tiny, "/predict", {**body, "inputs": pair})) == expected(pair)
        raw = await post(tiny, "/predict", {**body, "inputs": pair, "raw_scores": True})
        assert by_label(raw) == expected(pair, raw=True)
        first, second, third = await post(tiny, "/predict", {**body, "inputs": [one, pair, one[0]]})
        assert by_label(first) == by_label(third) == expected(one)
        assert by_label(second) == expected(pair)
        assert "[1]" in await refused(tiny, "/predict", {**body, "inputs": [one, ["a", "b", "c"]]}, 422, "Validation")
        assert "list of lists" in await refused(
            tiny, "/predict", {**body, "inputs": ["a", "b", "c"]}, 422, "Validation"
        )
        await refused(tiny, "/predict", {**body, "inputs": []}, 400, "Empty")

    async def test_hugging_face_s_shape(self, tiny: httpx.AsyncClient) -> None:
        body = {"model": "labels", "inputs": "hello"}
        plain = await post(tiny, "/predict", body)
        assert await post(tiny, "/", body) == plain
        for path in ("/", "/predict", "/invocations"):
            assert await post(tiny, path, {**body, "parameters": {}}) == [plain]
        [best] = await post(tiny, "/", {**body, "parameters": {"top_k": 1}})
        assert best == plain[:1]
        [raw] = await post(tiny, "/", {**body, "parameters": {"function_to_apply": "none"}})
        assert raw == await post(tiny, "/predict", {**body, "raw_scores": True})
        flat = {"model": "labels", "inputs": ["hello", "world", "hello"], "parameters": {}}
        found = await post(tiny, "/", flat)
        assert found[0] == found[2] == plain

    async def test_rerank_by_a_cross_encoder(
        self, tiny: httpx.AsyncClient, tiny_engine: tuple[Engine, dict[str, Path]]
    ) -> None:
        folder = tiny_engine[1]["ranker"]
        body = {"query": "the cat", "texts": ["sat on the mat", "stocks fell"], "model": "ranker"}
        raw = [float(logits(folder, "the cat", text)[0]) for text in body["texts"]]
        for options, expected in (({}, [1 / (1 + np.exp(-x)) for x in raw]), ({"raw_scores": True}, raw)):
            found = await post(tiny, "/rerank", {**body, **options})
            assert {one["index"]: one["score"] for one in found} == {
                at: pytest.approx(value, abs=1e-4) for at, value in enumerate(expected)
            }
            assert found == await post(tiny, "/", {**body, **options})

    async def test_wrong_task(self, tiny: httpx.AsyncClient) -> None:
        await refused(tiny, "/embed", {"inputs": "a", "model": "labels"}, 424, "Backend")
        await refused(tiny, "/rerank", {"query": "a", "texts": ["a"], "model": "labels"}, 424, "Backend")


class TestSparse:
    """A tiny SPLADE model, against sentence-transformers."""

    @pytest.fixture(scope="class")
    def terms(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Any]]:
        folder = tmp_path_factory.mktemp("terms")
        reference = splade(folder)
        model = load(folder, served_name="terms")
        with Engine({"terms": model}, EngineSettings()) as engine:
            yield engine, reference
        model.close()

    async def test_terms_and_weights(self, terms: tuple[Engine, Any]) -> None:
        engine, reference = terms
        texts = ["the cat sat", "", "stocks fell again"]
        expected = reference.encode(texts, convert_to_sparse_tensor=False, convert_to_tensor=True).numpy()
        async with client_of(create_app(loaded(engine), server_settings())) as client:
            for path in ("/embed_sparse", "/"):
                found = await post(client, path, {"inputs": texts})
                for row, ours in zip(expected, found, strict=True):
                    assert [one["index"] for one in ours] == np.nonzero(row)[0].tolist()
                    values = [one["value"] for one in ours]
                    np.testing.assert_allclose(values, row[row != 0], atol=1e-4)
            assert len(await post(client, "/embed_sparse", {"inputs": texts[0]})) == 1
            assert (await client.get("/info")).json()["model_type"] == {"embedding": {"pooling": "splade"}}
            await refused(client, "/embed", {"inputs": "a"}, 424, "Backend")


class TestRoot:
    async def test_by_keys(self, real: httpx.AsyncClient) -> None:
        for path in ("/", "/invocations"):
            found = np.array(await post(real, path, {"inputs": CATS}))
            np.testing.assert_allclose(found, await vectors(real, {"inputs": CATS}), atol=1e-6)
            similar = {"inputs": {"source_sentence": CATS[0], "sentences": CATS}, "parameters": {}}
            assert await post(real, path, similar) == pytest.approx(await post(real, "/similarity", similar), abs=1e-6)
            ranking = {"query": CATS[0], "texts": CATS}
            assert [one["index"] for one in await post(real, path, ranking)] == [0, 3, 1, 2]
            assert (await post(real, path, {"input": "a"}))["object"] == "list"
        short = await post(real, "/", {"inputs": "a", "parameters": {"dimensions": 7}})
        assert np.array(short).shape == (1, 7)

    async def test_vertex(self, real: httpx.AsyncClient) -> None:
        ranking = {"query": CATS[0], "texts": CATS[:2]}
        answer = await post(real, "/vertex", {"instances": [{"inputs": "a"}, ranking]})
        vectors_found, ranks = answer["predictions"]
        np.testing.assert_allclose(vectors_found, await vectors(real, {"inputs": "a"}), atol=1e-6)
        assert [one["index"] for one in ranks] == [0, 1]
        again = await post(real, "/rerank", ranking)
        assert [one["score"] for one in ranks] == pytest.approx([one["score"] for one in again], abs=1e-6)
        body = {"instances": [{"inputs": "a"}, {"inputs": ["a", 1]}]}
        assert "instances[1]: inputs[1]" in await refused(real, "/vertex", body, 422, "Validation")
        for body, status, kind in (({"instances": []}, 400, "Empty"), ({}, 422, "Validation")):
            assert "instances" in await refused(real, "/vertex", body, status, kind)

    async def test_the_root_answers_for_no_other_path(self, real: httpx.AsyncClient) -> None:
        answer = await real.get("/nothing/here")
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "route_not_found"
