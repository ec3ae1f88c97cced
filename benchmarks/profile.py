"""Where a forward pass of 512 tokens spends its time on the CPU, by kind of operation, as OpenVINO counts it."""

from __future__ import annotations

from collections import Counter
from typing import Any
from unittest.mock import patch

import numpy as np
import openvino as ov

from lemni.config import EngineSettings, HubSettings, ModelSettings
from lemni.loading import load_model
from lemni.types import PackedBatch, Sequence

BATCHES = {"16 x 32 tokens": [32] * 16, "2 x 256 tokens": [256] * 2}
KINDS = {
    "FullyConnected": "products with weights",
    "FullyConnectedCompressed": "products with weights",
    "Subgraph": "attention",
    "ScaledDotProductAttention": "attention",
    "Reorder": "conversions",
    "Gather": "gathers",
    "GatherCompressed": "gathers",
    "VariadicSplit": "splits and transposes",
    "Transpose": "splits and transposes",
}
_compile = ov.Core.compile_model


def counted(core: ov.Core, model: ov.Model, device: str, config: dict[str, Any]) -> Any:
    return _compile(core, model, device, {**config, "PERF_COUNT": True})


def shares(dtype: str, lengths: list[int], passes: int) -> dict[str, float]:
    """Percent by kind, the largest first, over fresh counters."""
    with patch.object(ov.Core, "compile_model", counted):
        model = load_model(
            ModelSettings(device="cpu", dtype=dtype), HubSettings.model_validate({}), EngineSettings.model_validate({})
        )
    rng = np.random.default_rng(0)
    runtime: Any = model.new_runtime(0)
    batch = PackedBatch.pack([Sequence(rng.integers(1000, 30000, length).astype(np.int32)) for length in lengths])
    for _ in range(passes):
        runtime.run(batch)
    [request] = runtime._requests.values()
    spent: Counter[str] = Counter()
    for node in request.profiling_info:
        spent[KINDS.get(node.node_type, "norms, sums and the rest")] += node.real_time.total_seconds()
    model.close()
    return {kind: 100 * seconds / spent.total() for kind, seconds in spent.most_common()}


def main(passes: int = 200) -> None:
    for dtype in ("float32", "int8"):
        for name, lengths in BATCHES.items():
            parts = ", ".join(f"{kind} {share:.0f} %" for kind, share in shares(dtype, lengths, passes).items())
            print(f"{dtype:8} {name}: {parts}")


if __name__ == "__main__":
    main()
