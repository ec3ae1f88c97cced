"""What a device has for a family besides torch's ordinary operations; tests on a CPU put emulations in their place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from types import FunctionType
from typing import Any, TypeAlias

import torch

from lemni.ops.torch_fp8 import Fp8, fp8_of
from lemni.ops.torch_varlen import VarlenAttention, varlen_attention
from lemni.runtimes.base import BackendOptions
from lemni.runtimes.torch_graphs import Capture, cuda_capture

Compiler: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]
"""A function -> the same function, compiled when it is called."""

_numbers = count()


@dataclass(frozen=True)
class Kernels:
    """Each is None where the device does not have it or nobody wants it.

    Attributes:
        varlen: attention over packed sequences. Without it there are no graphs and no compiling, for rows differ from
            batch to batch.
        fp8: linear layers in 8-bit floats.
        capture: records the passes of small batches.
        compiler: of the encoder.
    """

    varlen: VarlenAttention | None = None
    fp8: Fp8 | None = None
    capture: Capture | None = None
    compiler: Compiler | None = None


def kernels_of(device: torch.device, dtype: torch.dtype, options: BackendOptions) -> Kernels:
    """Raises ConfigError for fp8 on a device that does not compute in it."""
    fp8 = fp8_of(device) if options.dtype == "fp8" else None
    varlen = varlen_attention(device, dtype)
    return Kernels(
        varlen=varlen,
        fp8=fp8,
        capture=cuda_capture(device) if varlen is not None else None,
        compiler=torch_compiler() if options.compile else None,
    )


def torch_compiler(backend: str | Callable[..., Any] = "inductor") -> Compiler:
    """torch.compile. What has changed between the first two batches may change from then on."""
    return lambda function: torch.compile(_of_its_own(function), backend=backend)


def _of_its_own(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same with code and a name that no other has. By these torch.compile counts its graphs, of which it makes few,
    and knows sizes that change: models that share them run out of graphs, and have weights without fixed sizes."""
    assert isinstance(function, FunctionType)
    code = function.__code__.replace(co_name=f"encoder_{next(_numbers)}")
    return FunctionType(code, function.__globals__, code.co_name, function.__defaults__, function.__closure__)
