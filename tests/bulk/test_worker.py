"""The steps of one shard, one after the other: what is put aside, why, and what is written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lemni.bulk.manifest import Manifest, Record
from lemni.bulk.outputs import open_output
from lemni.bulk.plan import Model, Plan, Rules, plan
from lemni.bulk.rows import Broken, Rows
from lemni.bulk.windows import Computer
from lemni.bulk.worker import Worker, digest_of, printable
from lemni.errors import InvalidRequest
from lemni.types import Image

from .conftest import FAST


class Held:
    """A shard of rows that are there."""

    index = 3

    def __init__(self, *items: Any) -> None:
        texts = [item if isinstance(item, str) else None for item in items]
        self.rows = Rows(12, [f"k{n}" for n in range(len(items))], list(items), texts, [{} for _ in items])

    def load(self) -> Rows:
        return self.rows


@pytest.fixture(scope="module")
def computer() -> Iterator[Computer]:
    how = Model.named(FAST)
    with contextlib.closing(how.load()) as loaded, contextlib.closing(Computer(loaded, how.engine)) as computer:
        yield computer


@pytest.fixture
def made(computer: Computer, tmp_path: Path) -> Callable[..., tuple[Worker, Plan, Manifest]]:
    held: list[Manifest] = []

    def make(rules: Rules | None = None, **wanted: Any) -> tuple[Worker, Plan, Manifest]:
        for one in held:
            one.release()
        output = open_output(str(tmp_path / "out.npy"))
        planned = plan({}, output.identity(), Model.named(FAST), computer.model, rules=rules, **wanted)
        manifest = Manifest(tmp_path / "out.npy")
        held.append(manifest)
        manifest.discard()
        manifest.begin(planned.identity)
        output.prepare(planned.made)
        return Worker(planned, computer, output, manifest), planned, manifest

    return make


def through(worker: Worker, shard: Held) -> Record:
    return worker.write(worker.compute(worker.tokenize(worker.read(shard))))


def test_one_shard_from_rows_to_its_record(made: Any, computer: Computer) -> None:
    worker, _, manifest = made()
    shard = Held("a cat", None, "", Broken("no such thing"), "a dog", "\ud800", " \n", "a cat")
    record = through(worker, shard)
    assert manifest.record(3) == record
    assert (record.index, record.first, record.rows, record.written, record.truncated) == (3, 12, 8, 3, 0)
    assert [(one.row, one.id, one.reason) for one in record.rejects] == [
        (13, "k1", "is null"),
        (14, "k2", "is empty"),
        (15, "k3", "no such thing"),
        (17, "k5", "holds a lone surrogate, which is no character"),
        (18, "k6", "is empty"),
    ]
    assert [one.text for one in record.rejects] == [None, "", None, "\\ud800", " \n"]
    assert record.digest == digest_of(shard.rows)
    rows, vectors = worker.vectors(worker.compute(worker.tokenize(worker.read(shard))))
    assert (rows.ids, rows.texts) == (["k0", "k4", "k7"], ["a cat", "a dog", "a cat"])
    from lemni.types import Request

    expected = computer.compute(computer.tokenize(["a cat", "a dog", "a cat"], Request([]))).result
    np.testing.assert_array_equal(vectors, expected.vectors)
    assert record.tokens == expected.token_counts.sum()


def test_a_shard_without_a_good_row(made: Any) -> None:
    worker, planned, _ = made()
    record = through(worker, Held(None, ""))
    assert (record.rows, record.written, record.tokens, len(record.rejects)) == (2, 0, 0, 2)
    work = worker.compute(worker.tokenize(worker.read(Held(None))))
    rows, vectors = worker.vectors(work)
    assert len(rows) == 0
    assert vectors.shape == (0, planned.made.dimensions)


def test_rules(made: Any) -> None:
    worker, _, _ = made(Rules(empty="embed"))
    record = through(worker, Held("a", "", "  "))
    assert (record.written, record.rejects) == (3, [])
    worker, _, _ = made(Rules(fail_fast=True))
    with pytest.raises(InvalidRequest, match=r"^row 13 \(id 'k1'\): is null$"):
        worker.read(Held("a", None, ""))


def test_values_too_large_for_half_precision_reject_their_row(made: Any) -> None:
    worker, _, _ = made(output_type="float16")
    work = worker.compute(worker.tokenize(worker.read(Held("a cat", None, "a dog", "a house"))))
    vectors = work.computed.result.vectors.copy()
    vectors[1, 0] = 1e6
    work.computed = replace(work.computed, result=replace(work.computed.result, vectors=vectors))
    rows, found = worker.vectors(work)
    assert rows.ids == ["k0", "k3"]
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, vectors[[0, 2]].astype(np.float16))
    assert [one.row for one in work.rejects] == [13, 14]
    assert "float16" in work.rejects[1].reason


def test_passes_are_counted(made: Any, computer: Computer) -> None:
    _, planned, manifest = made()
    seen: list[tuple[int, int]] = []
    worker = Worker(planned, computer, open_output("x.npy"), manifest, None, lambda *one: seen.append(one))
    work = worker.compute(worker.tokenize(worker.read(Held("a", "b", "a", None))))
    assert work.passed == sum(rows for rows, _ in seen) == 2  # equal texts are one
    assert work.window is None


def test_digests_tell_rows_apart() -> None:
    def of(ids: list[Any], items: list[Any]) -> str:
        return digest_of(Rows(0, ids, items, [None] * len(ids), [{} for _ in ids]))

    given = [
        of(["a"], ["x"]),
        of(["b"], ["x"]),
        of(["a"], ["y"]),
        of(["a"], [None]),
        of(["a"], ["None"]),
        of([1], ["x"]),
        of(["1"], ["x"]),
        of(["a", "b"], ["x", "y"]),
        of(["a", "b"], ["y", "x"]),
        of(["a"], [Image(b"x")]),
        of(["a"], ["\ud800"]),
    ]
    assert len(set(given)) == len(given)
    assert of(["a"], ["x"]) == given[0]


def test_what_is_shown_of_a_text_can_be_written() -> None:
    assert printable("x" * 500) == "x" * 200
    assert printable("a\ud800ü") == "a\\ud800ü"
