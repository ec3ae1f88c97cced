"""Lance datasets, against Lance's own table."""

from __future__ import annotations

from pathlib import Path

import lance
import pyarrow as pa
import pytest

from lemni.bulk.sources import Columns, open_source
from lemni.errors import InvalidRequest
from tests.bulk.sources.reading import Row, read

# Lance tells of its own deprecations.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lance")


def test_rows_of_a_version(tmp_path: Path) -> None:
    path = str(tmp_path / "a.lance")
    table = pa.table({"id": range(40), "text": [f"ü{at}" for at in range(40)], "n": [[at] for at in range(40)]})
    dataset = lance.write_dataset(table, path, max_rows_per_file=9)
    dataset.delete("id = 3 or id > 36")
    kept = lance.dataset(path).to_table().to_pylist()
    wanted = [Row(row["id"], row["text"], row["text"], {"n": row["n"]}) for row in kept]
    assert len(wanted) == 36
    for rows in (1, 5, 36, 100):
        assert read(path, rows=rows) == wanted
    source = open_source([path], Columns())
    assert source.random_access
    assert source.count() == 36
    shards = list(source.shards(10))
    before = source.identity()
    lance.write_dataset(table.slice(0, 5), path, mode="overwrite")
    assert shards[2].load().ids == [row.id for row in wanted[20:30]]  # of the version that the shards were cut from
    assert open_source([path], Columns()).identity() != before
    assert len(read(path)) == 5


def test_a_folder_without_the_ending(tmp_path: Path) -> None:
    lance.write_dataset(pa.table({"body": ["a", None], "n": [1, 2]}), str(tmp_path / "set"))
    found = read(tmp_path / "set", Columns("body", "n", ()))
    assert found == [Row(1, "a", "a", {}), Row(2, None, None, {})]
    with pytest.raises(InvalidRequest, match="has no column 'text'; it has 'body', 'n'"):
        read(tmp_path / "set")
    lance.write_dataset(pa.table({"body": ["a"]}), str(tmp_path / "other"))
    with pytest.raises(InvalidRequest, match="one Lance dataset at a time"):
        read([tmp_path / "set", tmp_path / "other"], Columns("body"))
    (tmp_path / "empty.lance").mkdir()
    with pytest.raises(InvalidRequest, match=r"empty\.lance: cannot be read"):
        read(tmp_path / "empty.lance")
