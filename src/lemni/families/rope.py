"""Rotary position embedding (RoFormer, arXiv:2104.09864): its parameters in config.json, and its tables.

Files of the hub write `rope_theta` and `rope_scaling`, transformers 5 writes `rope_parameters`; both are read.
Reference: transformers, `modeling_rope_utils.py`. Families with rotary positions call it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.errors import ModelLoadError
from lemni.ops.base import Inputs, Ops, Tensor

# The tables end here even if the model's positions do not: 32 MiB for heads of 128.
LONGEST = 32768

Frequencies = NDArray[np.float32]


def rope_parameters(config: dict[str, Any], default_theta: float = 10000.0) -> dict[str, Any]:
    """One flat dict with `rope_type`, `rope_theta` and what the type needs, from either spelling of config.json."""
    parameters = dict(config.get("rope_scaling") or config.get("rope_parameters") or {})
    parameters.setdefault("rope_type", parameters.get("type", "default"))
    parameters.setdefault("rope_theta", config.get("rope_theta", default_theta))
    original = config.get("original_max_position_embeddings")
    if original is not None:
        parameters["original_max_position_embeddings"] = original
    parameters.setdefault("original_max_position_embeddings", config.get("max_position_embeddings"))
    return parameters


def frequencies(parameters: dict[str, Any], dim: int) -> tuple[Frequencies, float]:
    """Radians per position, float32 [dim / 2], and the factor that cos and sin are multiplied by.

    Raises:
        ModelLoadError: a `rope_type` that is not supported.
    """
    kind = parameters["rope_type"]
    if kind not in _SCALINGS:
        raise ModelLoadError(f"rope_type {kind!r} is not supported; supported are {', '.join(_SCALINGS)}")
    exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    # In float32 throughout, as the reference: at far positions the rounding shows.
    plain = np.float32(1) / np.power(np.float32(parameters["rope_theta"]), exponents)
    try:
        return _SCALINGS[kind](plain, parameters)
    except KeyError as missing:
        raise ModelLoadError(f"rope_type {kind!r} needs {missing.args[0]!r} in config.json") from None


class Rope:
    """Tables of cos and sin for positions 0..positions-1.

    Args:
        parameters: from `rope_parameters`.
        dim: size of a head.
    """

    def __init__(self, parameters: dict[str, Any], dim: int, positions: int, ops: Ops) -> None:
        self.ops = ops
        per_position, factor = frequencies(parameters, dim)
        angles = np.arange(positions, dtype=np.float32)[:, None] * per_position
        self.cos = ops.constant(np.cos(angles) * np.float32(factor))
        self.sin = ops.constant(np.sin(angles) * np.float32(factor))

    def __call__(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """cos and sin, each [T, dim], for `Ops.rotate`."""
        cos = self.ops.embedding(self.cos, inputs.positions)
        sin = self.ops.embedding(self.sin, inputs.positions)
        return self.ops.concat([cos, cos]), self.ops.concat([sin, sin])


def _plain(plain: Frequencies, parameters: dict[str, Any]) -> tuple[Frequencies, float]:
    return plain, 1.0


def _linear(plain: Frequencies, parameters: dict[str, Any]) -> tuple[Frequencies, float]:
    return plain / np.float32(parameters["factor"]), 1.0


def _ntk(plain: Frequencies, parameters: dict[str, Any]) -> tuple[Frequencies, float]:
    """Fixed NTK scaling, mixed if `mixed_b` is there (https://kexue.fm/archives/9706), as Alibaba's GTE has it."""
    factor, half = float(parameters["factor"]), len(plain)
    if parameters.get("mixed_b") is None:
        exponents = np.arange(half, dtype=np.float32) / np.float32(half)
        stretched = np.float32(1) / np.power(np.float32(parameters["rope_theta"] * factor), exponents)
        return stretched / np.float32(factor ** (1 / half)), 1.0
    mixed = float(parameters["mixed_b"])
    steps = np.arange(1, half + 1, dtype=np.float32) ** np.float32(mixed)
    return plain / np.exp(np.float32(math.log(factor) / half**mixed) * steps), 1.0


def _llama3(plain: Frequencies, parameters: dict[str, Any]) -> tuple[Frequencies, float]:
    """Long waves are stretched, short ones kept, those between blended (Llama 3.1)."""
    factor, low, high = (np.float32(parameters[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    context = np.float32(parameters["original_max_position_embeddings"])
    waves = np.float32(2 * math.pi) / plain
    blend = (context / waves - low) / (high - low)
    blended = (1 - blend) * plain / factor + blend * plain
    stretched = np.where(waves > context / low, plain / factor, blended)
    return np.where(waves < context / high, plain, stretched).astype(np.float32), 1.0


def _yarn(plain: Frequencies, parameters: dict[str, Any]) -> tuple[Frequencies, float]:
    """YaRN (arXiv:2309.00071): blends by the number of turns that a wave makes in the original context."""
    factor, context = float(parameters["factor"]), float(parameters["original_max_position_embeddings"])
    dim, theta = 2 * len(plain), float(parameters["rope_theta"])

    def place(turns: float) -> float:
        return dim * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = place(parameters.get("beta_fast") or 32), place(parameters.get("beta_slow") or 1)
    if parameters.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = (np.arange(dim // 2, dtype=np.float32) - low) / (high - low if high != low else 0.001)
    stretch = np.clip(ramp, 0, 1).astype(np.float32)
    return (plain / np.float32(factor) * stretch + plain * (1 - stretch)).astype(np.float32), _yarn_factor(parameters)


def _yarn_factor(parameters: dict[str, Any]) -> float:
    def scale(by: float) -> float:
        return 1.0 if parameters["factor"] <= 1 else 0.1 * by * math.log(parameters["factor"]) + 1.0

    if parameters.get("attention_factor") is not None:
        return float(parameters["attention_factor"])
    one, every = parameters.get("mscale"), parameters.get("mscale_all_dim")
    return scale(one) / scale(every) if one and every else scale(1.0)


_SCALINGS: dict[str, Callable[[Frequencies, dict[str, Any]], tuple[Frequencies, float]]] = {
    "default": _plain,
    "dynamic": _plain,  # differs only beyond max_position_embeddings, where no sequence goes
    "linear": _linear,
    "llama3": _llama3,
    "ntk": _ntk,
    "yarn": _yarn,
}
