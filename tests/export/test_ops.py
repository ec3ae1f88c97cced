"""Operations of the ONNX vocabulary that no tiny model has, against the plain numpy ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lemni.errors import ModelLoadError
from lemni.ops.base import ACTIVATIONS, Ops, Tensor
from lemni.ops.numpy import NumpyOps
from lemni.ops.onnx import ONNXOps
from lemni.ops.onnx_graph import Graph
from lemni.ops.onnx_inputs import ONNXInputs
from tests.export.graphs import on_onnxruntime, on_openvino

Program = Callable[..., Tensor]
OPSETS = pytest.mark.parametrize("opset", [14, 17, 18, 20])


def values(*shape: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def same(folder: Path, opset: int, program: Program, *arrays: NDArray[np.float32]) -> None:
    """Arrays of [tokens, ...] enter as one text of so many tokens."""
    wanted = program(NumpyOps(), *arrays)
    graph = Graph(opset)
    ops = ONNXOps(graph)
    ONNXInputs(graph)
    found = program(ops, *(ops.constant(array[None]) for array in arrays))
    graph.output("found", found, (None,) * (wanted.ndim + 1))
    path = folder / "graph.onnx"
    path.write_bytes(graph.proto(external=None, metadata={}).SerializeToString())
    feed = {name: np.ones((1, 3), np.int64) for name in ("input_ids", "attention_mask")}
    for engine in (on_onnxruntime, on_openvino):
        np.testing.assert_allclose(engine(path, feed)["found"][0], wanted, atol=2e-5)


@OPSETS
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name: str, opset: int, tmp_path: Path) -> None:
    def program(ops: Ops, x: Tensor) -> Tensor:
        return ops.activation(x, name) + x

    same(tmp_path, opset, program, np.linspace(-9, 9, 400, dtype=np.float32)[:, None])


@OPSETS
@pytest.mark.parametrize("weighted", [True, False])
def test_norms(weighted: bool, opset: int, tmp_path: Path) -> None:
    weight = values(8, seed=2)
    same(
        tmp_path,
        opset,
        lambda ops, x: ops.layer_norm(x, ops.constant(weight) if weighted else None, None, 1e-5),
        values(7, 8) * 0.1 + 3,
    )
    same(tmp_path, opset, lambda ops, x: ops.rms_norm(x, ops.constant(weight), 1e-3), values(7, 8) + 3)


@pytest.mark.parametrize("width", [8, 4])
@pytest.mark.parametrize("interleaved", [True, False])
def test_rotate(interleaved: bool, width: int, tmp_path: Path) -> None:
    arrays = values(7, 3, 8), values(7, width, seed=2), values(7, width, seed=3)
    same(tmp_path, 17, lambda ops, x, cos, sin: ops.rotate(x, cos, sin, interleaved), *arrays)


def test_a_weight_that_float16_does_not_hold(tmp_path: Path) -> None:
    graph = Graph(17)
    ops = ONNXOps(graph, half=True, name_of=lambda array: "large.weight")
    inputs = ONNXInputs(graph)
    table = ops.constant(np.full((50, 40), 7e4, np.float32))
    graph.output("found", ops.embedding(table, inputs.ids), ("batch", "sequence", 40))
    with pytest.raises(ModelLoadError, match=r"large\.weight has values over 65504"):
        graph.proto(external=None, metadata={})
