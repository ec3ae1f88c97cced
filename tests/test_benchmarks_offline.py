"""The arithmetic of the offline benchmark."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.limits import Shapes, fastest_s, float32_ways, int8_ways
from benchmarks.offline import alike, rates
from benchmarks.peers.process import Process
from benchmarks.works import Texts, Work

from lemni import hub

MINILM = Shapes(layers=6, hidden=384, inner=1536)


def test_multiply_adds_are_those_of_the_weights() -> None:
    # all-MiniLM-L6-v2 has 10.6 million weights in the linear layers of its encoder.
    assert MINILM.linear_flop(1) == 2 * 6 * (4 * 384 * 384 + 2 * 384 * 1536)
    assert MINILM.attention_flop([10, 20]) == 2 * 6 * 2 * 384 * (100 + 400)


def test_a_rate_at_the_limit_is_one() -> None:
    work = Work("", ["a", "b"], [10, 20])
    limit = MINILM.linear_flop(30) / 1e9
    found = rates(work, 1.0, MINILM, limit)
    assert found["texts_per_s"] == 2
    assert found["tokens_per_s"] == 30
    assert found["of_limit"] == pytest.approx(1)
    assert found["with_attention"] > 1


def test_cosines_do_not_depend_on_length() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((4, 8)).astype(np.float32)
    assert alike(3 * vectors, vectors)["min_cosine"] == pytest.approx(1)
    turned = vectors.copy()
    turned[2] = -turned[2]
    assert alike(turned, vectors) == pytest.approx({"mean_cosine": 0.5, "min_cosine": -1})


@pytest.mark.parametrize("ways", [float32_ways, int8_ways])
def test_every_library_multiplies(ways: object) -> None:
    found = dict(ways(64, 32, 1))  # type: ignore[operator]
    assert {"openvino", "torch"} <= set(found)
    for multiply in found.values():
        assert 0 < fastest_s(multiply) < 10


def test_texts_have_the_lengths_that_are_said(minilm: hub.ModelFiles) -> None:
    texts = Texts(minilm.path / "tokenizer.json")
    assert texts.mixed(30).items == 30
    assert max(texts.mixed(30).lengths) <= 256
    long = texts.long(3, 64)
    assert all(62 <= length <= 64 for length in long.lengths)
    pairs = texts.pairs(5)
    assert pairs.items == 5
    assert len(pairs.texts) == 6
    assert max(pairs.lengths) <= 256


def test_a_program_answers_orders_and_says_why_it_fails(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import json, sys\nprint('ready', flush=True)\nfor line in sys.stdin:\n"
        "    print(json.dumps({'twice': 2 * json.loads(line)['number']}), flush=True)\n"
    )
    process = Process(Path(sys.executable), program, stopped=True)
    assert process.ask({"number": 4}) == {"twice": 8}
    with pytest.raises(RuntimeError, match="KeyError: 'number'"):
        process.ask({})
    program.write_text("raise SystemExit('no such model')")
    with pytest.raises(RuntimeError, match="no such model"):
        Process(Path(sys.executable), program)
