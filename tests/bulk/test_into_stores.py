"""A bulk job into real vector stores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import lemni
import lemni.bulk
from lemni.stores import open_store

from ..stores.postgres_server import PostgresServer, postgres
from .conftest import FAST

__all__ = ["postgres"]

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def test_a_store_that_was_emptied_is_filled_again(rows: Path, tmp_path: Path) -> None:
    address = f"sqlite-vec:{tmp_path}/store.db?collection=docs"
    done = lemni.bulk.embed(rows, address, model=FAST, shard_rows=300, progress=False)
    assert (done.written, done.rejected) == (992, 8)
    assert Path(done.manifest) == tmp_path / "store.db-docs-rows.manifest.json"
    assert lemni.bulk.embed(rows, address, model=FAST, shard_rows=300, progress=False).seconds == 0
    store = open_store(address)
    assert store.count() == 992
    found = store.fetch(["row-0"])
    assert found.metadata == [{"year": 1900}]
    with lemni.load(FAST) as model:
        expected = model.embed([str(found.texts[0])])
    np.testing.assert_allclose(found.vectors, expected, atol=1e-6)
    store.drop()
    store.close()
    again = lemni.bulk.embed(rows, address, model=FAST, shard_rows=300, progress=False)
    assert again.resumed == 0
    store = open_store(address)
    assert store.count() == 992
    store.close()


def test_the_index_of_postgresql_is_built_in_the_end(rows: Path, tmp_path: Path, postgres: PostgresServer) -> None:
    address = postgres.address("bulk")
    done = lemni.bulk.embed(rows, address, model=FAST, progress=False, manifest=tmp_path / "job")
    assert done.written == 992
    store = open_store(address)
    assert not [note for note in store.describe().notes if "index" in note]
    assert store.search(store.fetch(["row-3"]).vectors, 1) == [["row-3"]]
    store.close()


@pytest.mark.parametrize("store", ["sqlite-vec:{}/store.db?collection=docs", "chroma:{}/store?collection=docs"])
def test_of_equal_ids_the_last_is_kept(store: str, tmp_path: Path) -> None:
    source, address = tmp_path / "rows.jsonl", store.format(tmp_path)
    given = [{"id": f"row-{number % 3}", "text": f"text {number}"} for number in range(8)]
    source.write_text("".join(json.dumps(row) + "\n" for row in given))
    done = lemni.bulk.embed(source, address, model=FAST, shard_rows=5, progress=False)
    assert done.rows == 8
    found = open_store(address)
    assert found.count() == 3
    assert dict(zip((page := found.fetch(["row-0", "row-1", "row-2"])).ids, page.texts, strict=True)) == {
        "row-0": "text 6",
        "row-1": "text 7",
        "row-2": "text 5",
    }
    found.close()
    assert lemni.bulk.embed(source, address, model=FAST, shard_rows=5, progress=False).seconds == 0


def test_another_input_is_added(rows: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    address = f"sqlite-vec:{tmp_path}/store.db?collection=docs"
    lemni.bulk.embed(rows, address, model=FAST, progress=False)
    assert not caplog.records
    more = tmp_path / "more.jsonl"
    more.write_text('{"id": "new", "text": "one more cat"}\n')
    done = lemni.bulk.embed(more, address, model=FAST, progress=False)
    assert done.written == 1
    assert "has entries already; they must be vectors of" in caplog.text
    store = open_store(address)
    assert store.count() == 993
    store.close()
