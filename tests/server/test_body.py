"""Parsing of large bodies: the garbage collector stays out of it, and is back afterwards."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from lemni.errors import InvalidRequest, TooManyItems
from lemni.server.body import parse
from lemni.server.inputs import items_of

MANY = b'{"input":[' + b",".join([b"[1]"] * 300_000) + b"]}"


def collections() -> int:
    return sum(generation["collections"] for generation in gc.get_stats())


def test_no_collections_while_a_large_body_is_parsed() -> None:
    assert gc.isenabled()
    before = collections()
    parsed = parse(MANY)
    assert collections() - before <= 1  # the one that was due comes when parsing is over
    assert gc.isenabled()
    assert len(parsed["input"]) == 300_000


def test_the_collector_is_back_after_a_broken_body_and_stays_off_if_it_was() -> None:
    with pytest.raises(InvalidRequest, match="not valid JSON"):
        parse(MANY[:-1])
    assert gc.isenabled()
    gc.disable()
    try:
        parse(MANY)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_too_many_items_are_counted_before_any_is_looked_at() -> None:
    class Counted(list[Any]):
        def __iter__(self) -> Any:
            raise AssertionError("an item was looked at")

    with pytest.raises(TooManyItems, match="9 items"):
        items_of(Counted([[1.5]] * 9), 8)
