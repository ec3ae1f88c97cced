"""One function over the op vocabulary, run by numpy (the reference), torch and OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray
from openvino import opset15

from lemni.ops.base import Inputs, Ops, Tensor
from lemni.ops.numpy import NumpyInputs, NumpyOps
from lemni.ops.openvino import OpenVINOOps
from lemni.ops.openvino_inputs import OpenVINOInputs
from lemni.ops.torch import TorchInputs, TorchOps
from lemni.types import PackedBatch, Sequence

Program = Callable[..., Tensor]
"""(ops, inputs, *arrays) -> a tensor."""

Array = NDArray[Any]


def with_numpy(program: Program, batch: PackedBatch, *arrays: Array) -> Array:
    result: Array = program(NumpyOps(), NumpyInputs(batch), *arrays)
    return result


def with_torch(program: Program, batch: PackedBatch, *arrays: Array, dtype: torch.dtype = torch.float32) -> Array:
    device = torch.device("cpu")
    tensors = [torch.from_numpy(array) for array in arrays]
    tensors = [tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in tensors]
    with torch.inference_mode():
        result = program(TorchOps(device, dtype), TorchInputs(batch, device, dtype), *tensors)
    return result.float().numpy() if result.is_floating_point() else result.numpy()


def with_openvino(program: Program, batch: PackedBatch, *arrays: Array) -> Array:
    """Arrays enter as parameters with a dynamic first axis, as tensors do within a model.

    Like those, they and a result of one row a token may have some rows at the end that belong to no token.
    """
    inputs = OpenVINOInputs()
    parameters = [opset15.parameter([-1, *array.shape[1:]], array.dtype.type) for array in arrays]
    output = program(OpenVINOOps(), inputs, *parameters)
    model = ov.Model([output], [*parameters, *inputs.parameters.values()], "program")
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    inputs.parameter("ids")  # after compiling: only to see how many tokens a batch is fed as
    feeds = inputs.feed(batch)
    spare = len(feeds["ids"]) - batch.tokens
    assert 0 <= spare < max(9, batch.tokens)
    padded = [np.concatenate([array, np.ones((spare, *array.shape[1:]), array.dtype)]) for array in arrays]
    wanted = {name: feeds[name] for node in model.inputs for name in node.names if name in feeds}
    result = np.array(compiled({**dict(enumerate(padded)), **wanted})[0])
    return result[: len(result) - spare] if spare and len(result) == len(feeds["ids"]) else result


LIBRARIES = {"torch": with_torch, "openvino": with_openvino}


def batch_of(*lengths: int, pool_starts: tuple[int, ...] | None = None, seed: int = 0) -> PackedBatch:
    random = np.random.default_rng(seed)
    starts = pool_starts or (0,) * len(lengths)
    return PackedBatch.pack(
        [
            Sequence(
                random.integers(0, 50, n, dtype=np.int32),
                token_types=random.integers(0, 2, n, dtype=np.int32),
                pool_start=start,
            )
            for n, start in zip(lengths, starts, strict=True)
        ]
    )


def same(program: Program, batch: PackedBatch, *arrays: Array, atol: float = 1e-5) -> Array:
    """Assert that all libraries agree; the reference's result."""
    reference = with_numpy(program, batch, *arrays)
    assert np.isfinite(reference).all()
    for name, run in LIBRARIES.items():
        result = run(program, batch, *arrays)
        assert result.shape == reference.shape, name
        np.testing.assert_allclose(result, reference, atol=atol, rtol=1e-5, err_msg=name)
    return reference


__all__ = ["LIBRARIES", "Array", "Inputs", "Ops", "batch_of", "same", "with_numpy", "with_openvino", "with_torch"]
