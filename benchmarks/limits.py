"""What this machine could do at best: the rate at which its libraries multiply matrices of a model's own shapes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Report

ROWS = 512
SECONDS = 0.15
"""For each library and shape; the fastest pass counts, since a limit is what was possible once."""


@dataclass(frozen=True)
class Shapes:
    """An encoder of BERT's form."""

    layers: int
    hidden: int
    inner: int

    @classmethod
    def of(cls, folder: Path) -> Shapes:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        return cls(config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"])

    @property
    def linear(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of a layer's matrices; query, key and value are one."""
        hidden, inner = self.hidden, self.inner
        return [(hidden, 3 * hidden), (hidden, hidden), (hidden, inner), (inner, hidden)]

    def linear_flop(self, tokens: int) -> float:
        """Floating point operations, two for a multiply-add, of all linear layers."""
        return 2.0 * tokens * self.layers * sum(inputs * outputs for inputs, outputs in self.linear)

    def attention_flop(self, lengths: list[int]) -> float:
        """Of queries by keys and weights by values: each token sees all tokens of its sequence."""
        return 2.0 * self.layers * 2 * self.hidden * float(sum(length * length for length in lengths))


Multiply = Callable[[], object]


def float32_ways(inputs: int, outputs: int, threads: int) -> Iterator[tuple[str, Multiply]]:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((ROWS, inputs), dtype=np.float32)
    weights = rng.standard_normal((inputs, outputs), dtype=np.float32)
    out = np.empty((ROWS, outputs), np.float32)
    yield "numpy", lambda: np.matmul(rows, weights, out=out)
    yield "openvino", _openvino(rows, weights, threads)
    if torch := _torch(threads):
        first, second, result = torch.from_numpy(rows), torch.from_numpy(weights), torch.from_numpy(out)
        yield "torch", lambda: torch.mm(first, second, out=result)


def bfloat16_ways(inputs: int, outputs: int, threads: int) -> Iterator[tuple[str, Multiply]]:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((ROWS, inputs), dtype=np.float32)
    weights = rng.standard_normal((inputs, outputs), dtype=np.float32)
    yield "openvino", _openvino(rows, weights, threads, "bf16")
    if torch := _torch(threads):
        first, second = torch.from_numpy(rows).bfloat16(), torch.from_numpy(weights).bfloat16()
        yield "torch", lambda: torch.mm(first, second)


def int8_ways(inputs: int, outputs: int, threads: int) -> Iterator[tuple[str, Multiply]]:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 255, (ROWS, inputs), dtype=np.uint8)
    weights = rng.integers(-127, 128, (inputs, outputs), dtype=np.int8)
    yield "openvino", _openvino(rows, weights, threads)
    if torch := _torch(threads):
        first = torch.from_numpy((rows >> 1).astype(np.int8))
        # Columns in sequence, as weights are kept.
        second = torch.from_numpy(np.ascontiguousarray(weights.T)).t()
        yield "torch", lambda: torch._int_mm(first, second)


def _openvino(
    rows: np.ndarray[Any, Any], weights: np.ndarray[Any, Any], threads: int, precision: str = "f32"
) -> Multiply:
    """A graph of one multiplication of fixed shape; integers are marked as codes, so that they stay integers."""
    import openvino as ov
    from openvino import opset13 as ops

    given = ops.parameter(list(rows.shape), rows.dtype, name="rows")
    left, right = given, ops.constant(np.ascontiguousarray(weights.T))
    if rows.dtype == np.uint8:
        left = ops.multiply(ops.convert(given, np.float32), np.float32(0.01))
        scales = np.full((weights.shape[1], 1), 0.01, np.float32)
        right = ops.multiply(ops.convert(right, np.float32), ops.constant(scales))
    graph = ov.Model([ops.matmul(left, right, False, True)], [given])
    hints = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    request = ov.Core().compile_model(graph, "CPU", hints).create_infer_request()
    request.set_input_tensor(ov.Tensor(rows))
    return request.infer


def _torch(threads: int) -> Any:
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(threads)
    return torch


def fastest_s(multiply: Multiply) -> float:
    """Seconds of the fastest pass."""
    best, until = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < until or best == float("inf"):
        start = time.perf_counter()
        multiply()
        best = min(best, time.perf_counter() - start)
    return best


def rate(shapes: Shapes, precision: str, threads: int) -> tuple[float, dict[str, float]]:
    """GFLOP/s (for integers GOP/s) over a layer's matrices: of the fastest library for each, and of each library."""
    ways = {"fp32": float32_ways, "bf16": bfloat16_ways, "int8": int8_ways}[precision]
    seconds = [
        {name: fastest_s(way) for name, way in ways(inputs, outputs, threads)} for inputs, outputs in shapes.linear
    ]
    work = shapes.linear_flop(ROWS) / shapes.layers / 1e9
    names = seconds[0]
    each = {name: work / sum(one[name] for one in seconds) for name in names}
    return work / sum(min(one.values()) for one in seconds), each


def add(report: Report, name: str, shapes: Shapes, threads: int) -> dict[str, float]:
    """Measure; GFLOP/s at each precision."""
    found = {}
    for precision in ("fp32", "bf16", "int8"):
        found[precision], each = rate(shapes, precision, threads)
        for library, value in each.items():
            report.add(f"{name}: matrices in {precision}", library, gflop_per_s=value)
    return found


def main(threads: int | None = None) -> None:
    from benchmarks.peers.engines import default_model, default_threads

    report = Report("limits", "The machine's own limit")
    model = default_model()
    found = add(report, "MiniLM-L6", Shapes.of(model), threads or default_threads())
    report.print(["gflop_per_s"], base="openvino")
    flop = Shapes.of(model).linear_flop(1)
    for precision, value in found.items():
        print(
            f"{precision}: {flop / 2e6:.2f} million multiply-adds a token, {value * 1e9 / flop:,.0f} tokens/s at most"
        )


if __name__ == "__main__":
    main()
