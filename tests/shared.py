"""Test sets that may lie beside the repository; tests that need them are skipped where they do not."""

from __future__ import annotations

import csv
from pathlib import Path

STSB = Path(__file__).parents[2] / "shared" / "data" / "stsb" / "en-test.csv"


def stsb() -> tuple[list[str], list[str], list[float]]:
    """The STS benchmark's English test set: first texts, second texts, human scores 0 to 5."""
    rows = list(csv.reader(STSB.read_text("utf-8").splitlines()))
    return [row[0] for row in rows], [row[1] for row in rows], [float(row[2]) for row in rows]
