"""How many threads a container's share of the CPUs is worth."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lemni.runtimes.base import BackendOptions
from lemni.runtimes.cpu import available_cpus, cpu_threads

BOUND = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000\n", BOUND),
        ("100000 100000\n", 1),
        ("150000 100000\n", min(2, BOUND)),
        ("20000 100000\n", 1),
        ("99900000 100000\n", BOUND),
        ("nonsense\n", BOUND),
    ],
)
def test_a_quota_bounds_the_threads(quota: str, expected: int, tmp_path: Path) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(quota)
    assert available_cpus(path) == expected


def test_without_a_quota(tmp_path: Path) -> None:
    assert available_cpus(tmp_path / "nothing") == BOUND
    assert cpu_threads(BackendOptions(threads=3)) == 3
