"""BGE-M3's three kinds of vectors, against FlagEmbedding's formulae in plain torch on the same weights."""

from __future__ import annotations

import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from lemni.errors import InvalidOutput, InvalidRequest, ModelLoadError
from lemni.hub.huggingface import choose_files
from lemni.tasks.bge_m3 import SparseTask
from lemni.types import Chunks, Pair, Result
from tests.families.decoders import save
from tests.tasks.classifiers import load, tokenizer
from tests.tasks.sparse_models import dense, request, served

TEXTS = ["a", "hello world", "the cat sat on the mat", "", "a 7 b 7 ?", "the the the cat", "zzz " * 30]
ALL = ("embed", "sparse", "multi_vector")
RUNTIMES = ("openvino", "torch", "transformers")


class Model(NamedTuple):
    tokenizer: Any
    encoder: Any
    sparse: torch.nn.Linear
    colbert: torch.nn.Linear

    def dense(self, text: str) -> NDArray[np.float32]:
        return F.normalize(self._hidden(text)[0][0], dim=-1).numpy()

    def weights(self, text: str) -> dict[int, float]:
        """`_process_token_weights` of FlagEmbedding."""
        hidden, ids = self._hidden(text)
        unused = {self.tokenizer.convert_tokens_to_ids(self.tokenizer.special_tokens_map[name]) for name in UNUSED}
        found: dict[int, float] = defaultdict(float)
        for weight, identity in zip(torch.relu(self.sparse(hidden)).squeeze(-1).tolist(), ids, strict=True):
            if identity not in unused and weight > found[identity]:
                found[identity] = weight
        return {identity: weight for identity, weight in found.items() if weight > 0}

    def vectors(self, text: str) -> NDArray[np.float32]:
        return F.normalize(self.colbert(self._hidden(text)[0][1:]), dim=-1).numpy()

    def _hidden(self, text: str) -> tuple[torch.Tensor, list[int]]:
        encoded = self.tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
        return self.encoder(**encoded).last_hidden_state[0], encoded.input_ids[0].tolist()


UNUSED = ("cls_token", "eos_token", "pad_token", "unk_token")


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


def save_m3(folder: Path, *, dim: int = 32, dtype: torch.dtype = torch.float32, safetensors: bool = False) -> Model:
    chosen = tokenizer("xlmr")
    chosen.save_pretrained(folder)
    config = hf.XLMRobertaConfig(
        vocab_size=len(chosen), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=66, pad_token_id=1, type_vocab_size=1,
    )  # fmt: skip
    encoder = save(hf.XLMRobertaModel(config), folder)
    layers = []
    for name, out in (("sparse_linear", 1), ("colbert_linear", dim)):
        layer = torch.nn.Linear(32, out).to(dtype)
        if safetensors:
            save_file(layer.state_dict(), folder / f"{name}.safetensors")
        else:
            torch.save(layer.state_dict(), folder / f"{name}.pt")
        layers.append(layer.float())
    return Model(chosen, encoder, *layers)


def check(model: Model, texts: list[str], result: Result, vocabulary: int) -> None:
    np.testing.assert_allclose(result.vectors, [model.dense(text) for text in texts], atol=1e-5)
    weights = np.zeros((len(texts), vocabulary), dtype=np.float32)
    for row, text in zip(weights, texts, strict=True):
        for identity, weight in model.weights(text).items():
            row[identity] = weight
    np.testing.assert_allclose(dense(result.sparse, vocabulary), weights, atol=1e-5)
    for text, vectors in zip(texts, result.multi_vectors, strict=True):
        np.testing.assert_allclose(vectors, model.vectors(text), atol=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("layers", [{}, {"dim": 12}, {"dtype": torch.float16}, {"safetensors": True}])
def test_all_three(tmp_path: Path, runtime: str, layers: dict[str, Any]) -> None:
    reference = save_m3(tmp_path, **layers)
    assert sum(len(reference.weights(text)) for text in TEXTS) > 8
    model = load(tmp_path, runtime=runtime)
    card = model.card
    assert (card.tasks, card.dimensions, card.normalized) == (
        ("embed", "score", "tokens", "sparse", "multi_vector"), 32, True,
    )  # fmt: skip
    [together] = served(model, request(TEXTS, *ALL))
    check(reference, TEXTS, together, card.vocabulary)
    for text in TEXTS:
        [alone] = served(model, request([text], *ALL))
        check(reference, [text], alone, card.vocabulary)
    [turned] = served(model, request(TEXTS[::-1], *ALL))
    check(reference, TEXTS[::-1], turned, card.vocabulary)
    embed, sparse, multi = served(model, *(request(TEXTS, task) for task in ALL))
    check(
        reference,
        TEXTS,
        Result(embed.token_counts, (), embed.vectors, sparse.sparse, multi.multi_vectors),
        card.vocabulary,
    )


def test_one_forward_pass_for_several_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_m3(tmp_path)
    model = load(tmp_path)
    from lemni.runtimes.openvino import OpenVINORuntime

    computed = []
    run = OpenVINORuntime.run

    def counted(self: Any, batch: Any) -> Any:
        computed.extend(batch.lengths.tolist())
        return run(self, batch)

    monkeypatch.setattr(OpenVINORuntime, "run", counted)
    [result] = served(model, request(["the cat", "a"], *ALL))
    assert sorted(computed) == sorted(result.token_counts.tolist())


def test_pairs_are_scored_by_dense_vectors(tmp_path: Path) -> None:
    reference = save_m3(tmp_path)
    pairs = [Pair(a, b) for a, b in zip(TEXTS, TEXTS[::-1], strict=True)]
    [result] = served(load(tmp_path), request(pairs, "score"))
    expected = [reference.dense(a) @ reference.dense(b) for a, b in zip(TEXTS, TEXTS[::-1], strict=True)]
    np.testing.assert_allclose(result.scores, expected, atol=1e-5)


def test_options(tmp_path: Path) -> None:
    reference = save_m3(tmp_path)
    model = load(tmp_path, max_length=16)
    text = "the cat sat on the mat and went away"
    [whole] = served(model, request(["the cat"], *ALL, dimensions=8, normalize=False))
    assert whole.vectors.shape == (1, 8)
    assert np.abs(np.linalg.norm(whole.multi_vectors[0], axis=1) - 1).max() > 1e-2
    with pytest.raises(InvalidRequest, match="only dense vectors are cut"):
        served(model, request(["a"], "sparse", "multi_vector", dimensions=8))
    # The parts of a long text: the largest weight of each term, and the vectors of all.
    assert model.tokenizer is not None
    windows = model.tokenizer.windows(text, "input")
    assert isinstance(windows, list)
    [long], [parts] = (
        served(model, request([text], "sparse", "multi_vector", truncate="chunk")),
        served(model, request([one.ids.tolist() for one in windows], "sparse", "multi_vector")),
    )
    size = model.card.vocabulary
    np.testing.assert_allclose(dense(long.sparse, size)[0], dense(parts.sparse, size).max(0), atol=1e-6)
    np.testing.assert_allclose(long.multi_vectors[0], np.concatenate(parts.multi_vectors), atol=1e-6)
    # Late chunking is for dense vectors alone.
    [late] = served(model, request([Chunks(("a cat", "mat"))], "embed"))
    assert late.vectors.shape == (2, 32)
    with pytest.raises(InvalidRequest, match="not chunks of a document"):
        served(model, request([Chunks(("a cat", "mat"))], "embed", "sparse"))
    assert reference.weights("") == {}


def test_tokens_that_are_no_terms(tmp_path: Path) -> None:
    save_m3(tmp_path)
    task = load(tmp_path).tasks["sparse"]
    assert isinstance(task, SparseTask)
    assert task._unused.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
@pytest.mark.parametrize("task", ALL)
def test_broken_weights_give_an_error(tmp_path: Path, runtime: str, task: Any) -> None:
    save_m3(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["embeddings.LayerNorm.weight"][3] = torch.nan
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InvalidOutput):
        served(load(tmp_path, runtime=runtime), request(["a cat"], task))


def test_a_file_that_is_no_layer(tmp_path: Path) -> None:
    save_m3(tmp_path)
    torch.save({"weight": torch.zeros(1, 32)}, tmp_path / "sparse_linear.pt")
    with pytest.raises(ModelLoadError, match=r"sparse_linear\.pt: holds weight; expected the weight and bias"):
        load(tmp_path)


def test_the_layers_are_downloaded(tmp_path: Path) -> None:
    listing = ["config.json", "model.safetensors", "sparse_linear.pt", "colbert_linear.pt", "other.pt"]
    assert choose_files(listing, trust_pickle=False, model_id="BAAI/bge-m3") == sorted(listing[:-1])


@pytest.mark.parametrize("names", [["last_hidden_state"], ["token_embeddings", "sentence_embedding"]])
def test_an_onnx_file(tmp_path: Path, names: list[str]) -> None:
    reference = save_m3(tmp_path)

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = reference.encoder

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            return (hidden, hidden[:, 0])[: len(names)]

    sample = reference.tokenizer(["a cat", "the"], padding=True, return_tensors="pt")
    axes = {"input_ids": {0: "b", 1: "t"}, "attention_mask": {0: "b", 1: "t"}, names[0]: {0: "b", 1: "t"}}
    warnings.simplefilter("ignore")  # of the exporter; pytest puts the filters back
    torch.onnx.export(
        Graph().eval(), (sample.input_ids, sample.attention_mask), tmp_path / "model.onnx", dynamo=False,
        input_names=["input_ids", "attention_mask"], output_names=names, dynamic_axes=axes,
    )  # fmt: skip
    (tmp_path / "model.safetensors").unlink()
    model = load(tmp_path)
    assert model.card.runtime == "onnx"
    [result] = served(model, request(TEXTS, *ALL))
    check(reference, TEXTS, result, model.card.vocabulary)
