"""JSON files: lists, objects, and those that do not fit into memory."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from lemni.bulk.sources import Columns, json_list, open_source
from lemni.errors import InvalidRequest
from tests.bulk.sources.reading import Row, read, reason

LISTS: list[Any] = [
    ["a", "", "ü\n"],
    [{"text": "a", "id": "x", "n": 1.5, "deep": {"a": [1, None, True]}}, {"text": "b", "m": 2**60}],
    ["a", {"text": "b"}, 3, None, {"text": None}, {"body": 1}, [], {"text": 4}],
    [],
]


def written(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def expected(value: list[Any]) -> list[tuple[Any, Any, dict[str, Any]]]:
    """Id, text and the rest of rows that are whole; ... for those that are not."""
    rows: list[tuple[Any, Any, dict[str, Any]]] = []
    for at, row in enumerate(value):
        if isinstance(row, str):
            rows.append((at, row, {}))
        elif isinstance(row, dict) and isinstance(row.get("text", 0), (str, type(None))):
            rest = {key: cell for key, cell in row.items() if key not in ("text", "id")}
            rows.append((row.get("id", at), row["text"], rest))
        else:
            rows.append((at, ..., row if isinstance(row, dict) else {}))
    return rows


@pytest.mark.parametrize("value", LISTS)
@pytest.mark.parametrize("whole", [json_list.WHOLE_BYTES, 1])
def test_lists(tmp_path: Path, value: list[Any], whole: int) -> None:
    with mock.patch.object(json_list, "WHOLE_BYTES", whole):
        found = read(written(tmp_path / "a.json", value), rows=2)
        (tmp_path / "b.json.gz").write_bytes(gzip.compress(json.dumps(value, indent=1).encode()))
        assert read(tmp_path / "b.json.gz", rows=3) == found
    wanted = expected(value)
    assert len(found) == len(wanted)
    for row, (key, text, rest) in zip(found, wanted, strict=True):
        assert row.id == key
        if text is ...:
            assert "not a text" in reason(row) or "neither" in reason(row) or "no field" in reason(row)
        else:
            assert row == Row(key, text, text, rest)


@pytest.mark.parametrize("whole", [json_list.WHOLE_BYTES, 1])
def test_an_object_of_texts(tmp_path: Path, whole: int) -> None:
    path = written(tmp_path / "a.json", {"k1": "a", "k2": {"text": "b", "n": 1}, "k3": 5, "k4": None, "k5": ["x"]})
    with mock.patch.object(json_list, "WHOLE_BYTES", whole):
        found = read(path, rows=2)
    assert found[:2] == [Row("k1", "a", "a", {}), Row("k2", "b", "b", {"n": 1})]
    assert [row.id for row in found] == ["k1", "k2", "k3", "k4", "k5"]
    assert reason(found[2]) == "is a number, not a text"
    assert found[3].item is None
    assert reason(found[4]) == "is a list, not a text"


def test_an_object_with_a_text_is_a_row(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", {"text": "a", "id": 3, "n": 1})
    assert read(path) == [Row(3, "a", "a", {"n": 1})]
    assert read(written(path, {"body": "a", "n": 1}), Columns("body")) == [Row(0, "a", "a", {"n": 1})]
    with mock.patch.object(json_list, "WHOLE_BYTES", 1), pytest.raises(InvalidRequest, match="one object of over"):
        read(written(path, {"n": 1, "text": "a"}))


def test_what_is_no_list(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for data, message in (
        (b"3", r"a\.json: is a number, neither a list nor an object"),
        (b'["a", ', r"a\.json: is not JSON: "),
        (b"", r"a\.json: is not JSON: "),
        (b'{"text": "a"}\n{"text": "b"}\n', "looks like JSON lines: name the format jsonl"),
        (b'["\xff"]', r"a\.json: is not UTF-8"),
    ):
        path.write_bytes(data)
        with pytest.raises(InvalidRequest, match=message):
            read(path)
    for data in (b'["a", ', b'["a" "b"]', b'["\xff"]', b'{"a": "b"', b"33"):
        path.write_bytes(data)
        with mock.patch.object(json_list, "WHOLE_BYTES", 1), pytest.raises(InvalidRequest, match=r"a\.json: is "):
            read(path)


def test_what_python_writes_beyond_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('\ufeff["a", {"text": "b", "n": NaN}, "\\ud800", {"text": "c"}]', "utf-8")
    found = read(path)
    assert [row.text for row in found] == ["a", "b", None, "c"]
    assert reason(found[2]) == "item 2 holds half of a character ('\\ud800') without the other half"


def test_it_is_read_from_front_to_end(tmp_path: Path) -> None:
    source = open_source([str(written(tmp_path / "a.json", ["a"]))], Columns())
    assert not source.random_access
    assert source.size() == 5
    with pytest.raises(InvalidRequest, match="none of the first 1 rows has a field 'z'"):
        read(written(tmp_path / "a.json", [{"text": "a"}]), Columns(carry=("z",)))
