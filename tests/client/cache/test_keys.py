"""Two different inputs or sets of options never share a key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lemni.client.cache import Keys, key_of
from lemni.client.cache.keys import KEY_BYTES, encode
from lemni.errors import InvalidRequest

TEXT = st.text(st.characters(exclude_categories=()) | st.sampled_from("0123456789:snm"), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OPTIONS: dict[str, Any] = {
    "server": "http://localhost:7997",
    "model": "m",
    "revision": None,
    "task": "dense",
    "prompt": None,
    "dimensions": None,
    "more": {},
}


def told_apart(value: Any) -> Any:
    """What equality should be: by type and by value, whatever Python's == says."""
    if isinstance(value, Mapping):
        return ("mapping", frozenset((key, told_apart(held)) for key, held in value.items()))
    if isinstance(value, (list, tuple)):
        return ("list", tuple(map(told_apart, value)))
    if isinstance(value, float):
        return ("float", "nan" if math.isnan(value) else value.hex())
    return (type(value).__name__, value)


def same_nan(value: Any) -> bool:
    """NaN has many bit patterns, of which Python shows none."""
    return "nan" not in repr(told_apart(value))


@given(VALUES, VALUES)
@example("1", 1)
@example(1, 1.0)
@example(1, True)
@example(0.0, -0.0)
@example(None, "")
@example("", b"")
@example(["ab", "c"], ["a", "bc"])
@example(["a", ["b"]], ["a", "b"])
@example("s1:a", ["a"])
@example({"a": "b"}, ["a", "b"])
@example({"a": None}, {})
@example([[]], [])
def test_encodings_differ_when_values_do(one: Any, other: Any) -> None:
    if same_nan(one) and same_nan(other):
        assert (encode(one) == encode(other)) == (told_apart(one) == told_apart(other))


@given(
    st.lists(VALUES.filter(same_nan), min_size=2, max_size=4), st.lists(VALUES.filter(same_nan), min_size=2, max_size=4)
)
def test_laid_end_to_end_they_still_differ(one: list[Any], other: list[Any]) -> None:
    equal = b"".join(map(encode, one)) == b"".join(map(encode, other))
    assert equal == (told_apart(one) == told_apart(other))


@given(st.dictionaries(TEXT, SCALARS, min_size=2, max_size=5), st.randoms())
def test_the_order_of_options_does_not_matter(options: dict[str, Any], random: Any) -> None:
    shuffled = list(options.items())
    random.shuffle(shuffled)
    assert encode(options) == encode(dict(shuffled))


@pytest.mark.parametrize(
    "change",
    [
        {"server": "http://localhost:7998"},
        {"model": "mm"},
        {"revision": "m"},
        {"revision": ""},
        {"task": "multi_vector"},
        {"prompt": ""},
        {"prompt": "query: "},
        {"dimensions": 0},
        {"dimensions": 64},
        {"more": {"normalize": True}},
        {"more": {"normalize": None}},
    ],
    ids=str,
)
def test_every_option_counts(change: dict[str, Any]) -> None:
    assert key_of(**OPTIONS, item="a") != key_of(**{**OPTIONS, **change}, item="a")


def test_a_value_does_not_slip_into_the_next_field() -> None:
    assert key_of(**{**OPTIONS, "prompt": "a"}, item="b") != key_of(**{**OPTIONS, "prompt": "b"}, item="a")
    assert key_of(**{**OPTIONS, "prompt": "ab"}, item="c") != key_of(**{**OPTIONS, "prompt": "a"}, item="bc")
    assert key_of(**{**OPTIONS, "revision": "x"}, item="a") != key_of(**{**OPTIONS, "prompt": "x"}, item="a")


def test_text_bytes_and_token_ids_differ() -> None:
    keys = Keys(**OPTIONS)
    items = ["a", b"a", ["a"], [97], "97", "\ud800", "é", "e\u0301"]
    assert len({keys(item) for item in items}) == len(items)


def test_keys_for_many_are_the_keys_for_one() -> None:
    keys = Keys(**OPTIONS)
    for item in ("a", b"a", "b", "a"):
        assert keys(item) == key_of(**OPTIONS, item=item)
        assert len(keys(item)) == KEY_BYTES


def test_keys_stay_what_they_are() -> None:
    """A cache on disk or in Redis outlives a release: a key that changes without its version makes it useless."""
    options = {**OPTIONS, "prompt": "query: ", "dimensions": 64, "more": {"normalize": True, "top": 0.5}}
    assert key_of(**options, item="naïve").hex() == "4dca1f54385b4c26384282e4b94ef702111e142b9a4735d3e51c83cd61fab1aa"


def test_what_cannot_be_part_of_a_key_is_named() -> None:
    with pytest.raises(InvalidRequest, match="set cannot be part of a cache key"):
        Keys(**{**OPTIONS, "more": {"words": {"a"}}})
