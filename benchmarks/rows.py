"""Attention over shared rows against one padded row per sequence, in the OpenVINO runtime."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from benchmarks.rounds import alternate
from lemni.config import EngineSettings, HubSettings, ModelSettings
from lemni.loading import load_model
from lemni.ops.plan import RowPlan, plan_rows
from lemni.types import PackedBatch, Sequence

BATCHES = {
    "32 x 16 tokens": [16] * 32,
    "2 x 256": [256] * 2,
    "8 to 64 mixed": [8, 64, 16, 48, 24, 40, 32, 56, 12, 60, 20, 52, 28, 52],
    "256 + 16 x 16": [256] + [16] * 16,
}


def padded(lengths: NDArray[np.int32]) -> RowPlan:
    count = len(lengths)
    rows = np.arange(count, dtype=np.int32)
    return RowPlan(lengths, rows, np.zeros(count, dtype=np.int32), count, int(lengths.max()))


def main(passes: int = 10) -> None:
    model = load_model(ModelSettings(device="cpu"), HubSettings(), EngineSettings())
    runtime = model.new_runtime(0)
    rng = np.random.default_rng(0)

    def case(plan: Callable[[NDArray[np.int32]], RowPlan], batch: PackedBatch) -> Callable[[], None]:
        def run() -> None:
            with patch("lemni.ops.openvino_inputs.plan_rows", plan):
                for _ in range(passes):
                    runtime.run(batch)

        return run

    print(f"{'batch':18} {'padded tok/s':>14} {'rows tok/s':>14} {'ratio':>8}")
    for name, lengths in BATCHES.items():
        batch = PackedBatch.pack([Sequence(rng.integers(1000, 30000, n).astype(np.int32)) for n in lengths])
        seconds = alternate({"padded": case(padded, batch), "rows": case(plan_rows, batch)})
        rates = {kind: batch.tokens * passes / value for kind, value in seconds.items()}
        print(f"{name:18} {rates['padded']:14.0f} {rates['rows']:14.0f} {rates['rows'] / rates['padded']:8.2f}")


if __name__ == "__main__":
    main()
