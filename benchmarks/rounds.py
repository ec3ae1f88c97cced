"""Alternating rounds: A B C A B C ..., so that drift of the machine hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median


def alternate(cases: Mapping[str, Callable[[], object]], rounds: int = 5) -> dict[str, float]:
    """Median seconds of each case, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for round_number in range(rounds + 1):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            if round_number:
                seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


def table(seconds: Mapping[str, float], amount: float, unit: str, base: str) -> None:
    """Print a rate for each case, and its ratio to the case `base`."""
    print(f"{'':24} {unit + '/s':>14} {'ratio':>8}")
    for name, value in seconds.items():
        print(f"{name:24} {amount / value:14.0f} {seconds[base] / value:8.2f}")
