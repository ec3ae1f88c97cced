"""`run_stages`: order, overlap, bounds, and what an error does."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from lemni.bulk.stages import run_stages


def test_items_go_through_all_stages_in_order() -> None:
    assert list(run_stages(range(100), lambda n: n + 1, lambda n: n * 2)) == [(n + 1) * 2 for n in range(100)]
    assert list(run_stages([], str)) == []


def test_the_next_item_is_read_while_one_is_worked_on() -> None:
    read_next = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        read_next.set()
        yield 1

    assert list(run_stages(items(), lambda n: read_next.wait(30))) == [True, True]


def test_not_more_is_read_than_fits() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for n in range(100):
            read.append(n)
            yield n

    results = run_stages(items(), lambda n: n, room=1)
    assert next(results) == 0
    # One in the consumer's hands, and in each of two channels, one in each of two stages' hands.
    assert len(read) <= 6
    results.close()
    assert threading.active_count() < 20


@pytest.mark.parametrize("where", ["items", "first", "second"])
def test_the_first_error_ends_all(where: str) -> None:
    before = threading.active_count()

    def fail(n: int, stage: str) -> int:
        if n == 3 and stage == where:
            raise ValueError(f"at {n}")
        return n

    results = run_stages((fail(n, "items") for n in range(10)), lambda n: fail(n, "first"), lambda n: fail(n, "second"))
    seen: list[int] = []
    with pytest.raises(ValueError, match="at 3"):
        seen.extend(results)
    assert seen == list(range(len(seen)))
    assert threading.active_count() == before
