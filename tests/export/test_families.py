"""Every family as ONNX: the hidden states of transformers, in rectangles with padding on either side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import transformers as hf

from lemni.types import Sequence
from tests.export.graphs import exported, hidden, on_onnxruntime, on_openvino
from tests.families import test_deberta as deberta
from tests.families import test_decoders as decoders
from tests.families import test_encoders as encoders
from tests.families import test_gemma3 as gemma3
from tests.families import test_hub_encoders as hub
from tests.families.encoders import TOLERANCE, Forward, expected, forward_of, save, sequences
from tests.families.references import jina_bert, jina_shapes, nomic_bert, nomic_shapes, random_tensors


class Tiny(NamedTuple):
    """A model in a folder, its reference, and how many token types it has."""

    folder: Path
    forward: Forward
    types: int


Make = Callable[[Path], Tiny]


def of_config(config: Any, types: int = 1) -> Make:
    def make(folder: Path) -> Tiny:
        model = save(hf.AutoModel.from_config(config), folder)
        return Tiny(folder, forward_of(model, types=types > 1), types)

    return make


def of_tensors(config: dict[str, Any], reference: Any, shapes: Any, types: int = 2) -> Make:
    def make(folder: Path) -> Tiny:
        tensors = random_tensors(shapes)
        hub.write(folder, config, tensors)
        return Tiny(folder, hub.one_by_one(reference, config, tensors), types)

    return make


def of_decoder(tiny: Any, case: str) -> Make:
    def make(folder: Path) -> Tiny:
        return Tiny(folder, forward_of(tiny(case, folder), types=False), 1)

    return make


CASES: dict[str, Make] = {
    **{name: of_config(case.config, case.types) for name, case in encoders.CASES.items()},
    **{
        f"deberta {name}": of_config(hf.DebertaV2Config(**case), 2 if case.get("type_vocab_size") else 1)
        for name, case in deberta.CASES.items()
    },
    # What a rope is stretched by is in a table, the same for all libraries.
    **{name: of_decoder(decoders._tiny, name) for name in decoders.CASES if not name.startswith("llama ")},
    **{f"gemma3 {name}": of_decoder(gemma3._tiny, name) for name in gemma3.CASES},
    "jina": of_tensors(hub.JINA, jina_bert, jina_shapes(3, code=False)),
    "jina code": of_tensors(hub.JINA, jina_bert, jina_shapes(3, code=True)),
    "nomic as the hub has it": of_tensors(hub.NOMIC, nomic_bert, nomic_shapes(3, bias=False, gated=True)),
}


def some(types: int) -> list[Sequence]:
    return sequences(1, 2, 7, 40, 13, types=types)


@pytest.mark.parametrize("case", CASES)
def test_hidden_states_are_the_reference_s(case: str, tmp_path: Path) -> None:
    tiny = CASES[case](tmp_path)
    items = some(tiny.types)
    states = expected(tiny.forward, items)
    assert np.abs(states).max() > 0.5
    path = exported(tmp_path)
    for side in ("right", "left"):
        assert np.abs(hidden(path, items, side) - states).max() <= TOLERANCE, side
    assert np.abs(hidden(path, items, engine=on_openvino) - states).max() <= TOLERANCE


@pytest.mark.parametrize("case", ["bert", "modernbert", "deberta v3", "qwen3", "mpnet"])
@pytest.mark.parametrize("opset", [14, 18, 20])
def test_other_opsets(case: str, opset: int, tmp_path: Path) -> None:
    tiny = CASES[case](tmp_path)
    path = exported(tmp_path, opset=opset)
    [version] = [entry.version for entry in onnx.load(path).opset_import]
    assert version == opset
    states = expected(tiny.forward, some(tiny.types))
    for engine in (on_onnxruntime, on_openvino):
        assert np.abs(hidden(path, some(tiny.types), engine=engine) - states).max() <= TOLERANCE


@pytest.mark.parametrize("case", ["bert", "modernbert", "deberta v3", "qwen3", "mpnet", "jina"])
def test_halves(case: str, tmp_path: Path) -> None:
    """Half the size, and the numbers of a model whose matrices were rounded."""
    tiny = CASES[case](tmp_path)
    states = expected(tiny.forward, some(tiny.types))
    whole = exported(tmp_path).stat().st_size
    path = exported(tmp_path, dtype="float16")
    matrices = [t for t in onnx.load(path).graph.initializer if t.data_type == onnx.TensorProto.FLOAT16]
    assert len(matrices) > 8
    assert path.stat().st_size < whole
    for engine in (on_onnxruntime, on_openvino):
        difference = np.abs(hidden(path, some(tiny.types), engine=engine) - states).max()
        assert 1e-5 < difference < 0.05


def test_names_are_those_of_the_files(tmp_path: Path) -> None:
    CASES["bert"](tmp_path)
    graph = onnx.load(exported(tmp_path)).graph
    assert [port.name for port in graph.input] == ["input_ids", "attention_mask", "token_type_ids"]
    axes = [[size.dim_param or size.dim_value for size in port.type.tensor_type.shape.dim] for port in graph.output]
    assert [port.name for port in graph.output] == ["last_hidden_state", "pooler_output"]
    assert axes == [["batch", "sequence", 32], ["batch", 32]]
    weights = {tensor.name for tensor in graph.initializer}
    assert "embeddings.word_embeddings.weight" in weights
    assert "encoder.layer.2.attention.self.query_key_value.weight_transposed" in weights
    nodes = [node.name for node in graph.node]
    assert len(set(nodes)) == len(nodes)
    assert "/encoder/layer.1/intermediate/dense/MatMul" in nodes
    assert not [name for name in (*weights, *nodes) if "constant" in name]
    # All values but few have a shape, for people who look at the graph.
    assert len(graph.value_info) > 0.9 * len(nodes)


def test_types_are_an_input_only_where_there_are_several(tmp_path: Path) -> None:
    of_config(hf.RobertaConfig(**encoders.SIZES, pad_token_id=1, type_vocab_size=1))(tmp_path)
    assert [port.name for port in onnx.load(exported(tmp_path)).graph.input] == ["input_ids", "attention_mask"]


def test_pooler_output_is_that_of_transformers(tmp_path: Path) -> None:
    import torch

    from tests.export.graphs import rectangle

    config = encoders.CASES["bert"].config
    model = save(hf.AutoModel.from_config(config), tmp_path)
    feed = rectangle(some(2))
    with torch.inference_mode():
        pooled = model(**{name: torch.from_numpy(value) for name, value in feed.items()}).pooler_output.numpy()
    assert np.abs(on_onnxruntime(exported(tmp_path), feed)["pooler_output"] - pooled).max() <= 1e-5


def test_a_row_of_padding_is_not_nan(tmp_path: Path) -> None:
    CASES["bert"](tmp_path)
    feed = {name: np.zeros((2, 5), np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
    feed["attention_mask"][0, :3] = 1
    for values in on_onnxruntime(exported(tmp_path, pooled=True), feed).values():
        assert np.isfinite(values).all()


def test_weights_beside_a_large_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = CASES["bert"](tmp_path)
    monkeypatch.setattr("lemni.export.model._LARGEST_FILE", 1000)
    path = exported(tmp_path)
    data = path.with_name("exported.onnx_data")
    assert data.stat().st_size > 40_000 > path.stat().st_size / 4
    states = expected(tiny.forward, some(2))
    for engine in (on_onnxruntime, on_openvino):
        assert np.abs(hidden(path, some(2), engine=engine) - states).max() <= TOLERANCE
