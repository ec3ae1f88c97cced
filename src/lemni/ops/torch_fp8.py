"""Linear layers in 8-bit floats (e4m3): a scale for each row of the weight and for each token, found when it comes.

Reference: FP8 Formats for Deep Learning, arXiv:2209.05433; the product is torch's row-wise `_scaled_mm`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from lemni.errors import ConfigError

FP8 = torch.float8_e4m3fn
LARGEST = 448.0
"""The largest e4m3; a conversion makes NaN of what is beyond."""

SMALLEST_SIDE = 256
"""Matrices with fewer rows or columns stay as they are: heads of a few labels cost nothing and decide most."""

_MULTIPLE = 16  # of both sides, which the kernels want
_CAPABILITY = (8, 9)


class Codes(NamedTuple):
    """x ~ codes * scales.

    Attributes:
        codes: e4m3 [n, k].
        scales: float32 [n, 1].
    """

    codes: torch.Tensor
    scales: torch.Tensor


Product = Callable[[Codes, Codes, "torch.Tensor | None", torch.dtype], torch.Tensor]
"""(x [T, in], weight [out, in], bias [out], dtype) -> x W^T + b, [T, out]."""


def quantize(x: torch.Tensor) -> Codes:
    """The largest magnitude of each row [n, k] becomes the largest code."""
    wide = x.float()
    scales = wide.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / LARGEST
    return Codes((wide / scales).clamp(-LARGEST, LARGEST).to(FP8), scales)


def scaled_mm(x: Codes, weight: Codes, bias: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """The kernel. `dtype` must be bfloat16, the only one that it gives with a scale for each row."""
    return torch._scaled_mm(
        x.codes, weight.codes.t(), scale_a=x.scales, scale_b=weight.scales.t(), bias=bias, out_dtype=dtype
    )


def emulated_scaled_mm(x: Codes, weight: Codes, bias: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """The same product in float32, for tests."""
    product = (x.codes.float() * x.scales) @ (weight.codes.float() * weight.scales).t()
    return (product if bias is None else product + bias.float()).to(dtype)


@dataclass
class Matrix:
    """A large constant, of which only its use tells whether it is a linear layer's weight or a table to look up.

    Attributes:
        tensor: [n, k]; None once it is quantised.
        codes: of a weight, after its first use.
    """

    tensor: torch.Tensor | None
    codes: Codes | None = None


@dataclass(frozen=True)
class Fp8:
    """How linear layers are computed in 8-bit floats.

    Attributes:
        product: `scaled_mm`, or its emulation.
        smallest_side: of matrices that are quantised.
    """

    product: Product = scaled_mm
    smallest_side: int = SMALLEST_SIDE

    def is_worth_it(self, tensor: torch.Tensor) -> bool:
        return (
            tensor.ndim == 2
            and tensor.is_floating_point()
            and min(tensor.shape) >= self.smallest_side
            and not any(side % _MULTIPLE for side in tensor.shape)
        )

    def linear(self, x: torch.Tensor, weight: Matrix, bias: torch.Tensor | None) -> torch.Tensor:
        """x W^T + b, [..., out], in x's precision. The first call quantises the weight, and frees it."""
        if weight.codes is None:
            assert weight.tensor is not None
            weight.codes, weight.tensor = quantize(weight.tensor), None
        flat = x.reshape(-1, x.shape[-1])
        return self.product(quantize(flat), weight.codes, bias, x.dtype).view(*x.shape[:-1], -1)


def fp8_of(device: torch.device) -> Fp8:
    """8-bit floats on this device.

    Raises:
        ConfigError: it does not have them; says why.
    """
    lack = ""
    if device.type != "cuda":
        lack = f"{device} is no GPU"
    elif (capability := torch.cuda.get_device_capability(device)) < _CAPABILITY:
        lack = f"{torch.cuda.get_device_name(device)} has compute capability {capability[0]}.{capability[1]}"
    else:
        try:
            ones = quantize(torch.ones(16, 32, device=device))
            out = scaled_mm(ones, ones, torch.ones(16, dtype=torch.bfloat16, device=device), torch.bfloat16)
            if not torch.allclose(out.float(), torch.full_like(out, 33.0, dtype=torch.float32)):
                lack = "the product of torch is wrong there"
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            lack = f"torch cannot: {error}"
    if lack:
        raise ConfigError(f"fp8 needs a GPU of compute capability 8.9 or higher, and {lack}: choose another dtype")
    return Fp8()
