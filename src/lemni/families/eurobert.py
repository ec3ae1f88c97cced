"""EuroBERT (arXiv:2503.05500): Llama's layers, seeing both sides.

Reference: transformers, `models/eurobert/modeling_eurobert.py`.
"""

from __future__ import annotations

from typing import Any

from lemni.families.decoder import Decoder
from lemni.families.weights import Weights
from lemni.ops.base import Inputs, Ops, Tensor


class EuroBert:
    """The decoder family without its mask."""

    def __init__(self, config: dict[str, Any], weights: Weights, ops: Ops) -> None:
        settings = {"rms_norm_eps": 1e-5, **config, "model_type": "llama", "is_causal": False}
        self.decoder = Decoder(settings, weights, ops)
        self.max_positions: int | None = self.decoder.max_positions

    def __call__(self, inputs: Inputs) -> Tensor:
        return self.decoder(inputs)
