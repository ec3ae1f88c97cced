"""Runs the comparison of both kinds of score, in Python or Go, and reads what it prints, character by character."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import NamedTuple

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
PYTHON = (sys.executable, str(EXAMPLES / "rerank_compare.py"))
NOWHERE = "http://127.0.0.1:1"
_READ = ("INFINITY_URL", "OPENAI_BASE_URL", "OPENAI_API_KEY")
_LINE = r"([1-5])\. \[Score: (-?\d+\.\d{7})\] (.+)\n"
_CASE = re.compile(
    rf"\n={{70}}\nCase: (.+)\nQuery: (.+)\n={{70}}\n"
    rf"\n--- Embedding Similarity \(Bi-Encoder\) ---\n((?:{_LINE}){{5}})"
    rf"\n--- Reranker Scores \((.+)\) ---\n((?:{_LINE}){{5}})"
)


class Printed(NamedTuple):
    """A case: its query, and the scores of its documents."""

    query: str
    similarity: dict[str, float]
    relevance: dict[str, float]


def run(program: Seq[str], *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """With nothing in the environment but what is given; other machines cannot be reached."""
    kept = {name: value for name, value in os.environ.items() if name not in _READ}
    # Servers on this machine are reached past the proxy.
    kept |= {"HTTPS_PROXY": NOWHERE, "https_proxy": NOWHERE}
    return subprocess.run([*program, *arguments], env=kept | environment, capture_output=True, text=True, timeout=120)


def read(done: subprocess.CompletedProcess[str], kind: str = "Cross-Encoder") -> tuple[str, str, dict[str, Printed]]:
    """The endpoint, the embedding model, and the cases by their names. Checks the layout and the order."""
    assert done.returncode == 0, done.stderr
    header = re.match(r"Using reranker endpoint: (.+)\nUsing embedding model: (.+)\n\n", done.stdout)
    assert header is not None, done.stdout
    place, cases = header.end(), {}
    while place < len(done.stdout):
        case = _CASE.match(done.stdout, place)
        assert case is not None, done.stdout[place:]
        name, query, similarity, heading, relevance = (case[group] for group in (1, 2, 3, 7, 8))
        assert heading == kind
        cases[name] = Printed(query, _scores(similarity), _scores(relevance))
        place = case.end()
    return header[1], header[2], cases


def check(cases: dict[str, Printed], expected: dict[str, Printed]) -> None:
    assert list(cases) == list(expected)
    for name, case in cases.items():
        wanted = expected[name]
        assert case.query == wanted.query
        assert case.similarity == pytest.approx(wanted.similarity, abs=2e-6)
        assert case.relevance == pytest.approx(wanted.relevance, abs=2e-6)


def _scores(lines: str) -> dict[str, float]:
    found = re.findall(_LINE, lines)
    assert [int(place) for place, _, _ in found] == [1, 2, 3, 4, 5]
    scores = [float(score) for _, score, _ in found]
    assert scores == sorted(scores, reverse=True)
    return {text: score for (_, _, text), score in zip(found, scores, strict=True)}
