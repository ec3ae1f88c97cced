"""A store as the output, with real ones in this process: Chroma in a folder, Qdrant's local mode, LanceDB."""

from __future__ import annotations

import datetime
import gc
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lemni.bulk.outputs import Made, open_output
from lemni.errors import InvalidRequest, StoreError
from lemni.stores import open_store
from lemni.stores.base import Page
from tests.bulk.outputs.made import MULTI, SPARSE, WIDTH, dense, ids, rows, shards, stacked, vectors

pytestmark = [
    # Clients leave connections and files to the garbage collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()


def kept(address: str) -> Page:
    """All entries, in the order of their ids."""
    store = open_store(address)
    try:
        [page] = store.pages(1000, vectors=True)
        order = sorted(range(len(page)), key=lambda at: str(page.ids[at]))
        found = store.fetch([page.ids[at] for at in order])
        return Page(found.ids, found.texts, found.metadata, found.vectors)
    finally:
        store.close()


@pytest.mark.parametrize("output_type", ["float32", "float16", "int8"])
def test_rows_with_text_and_metadata_in_chroma(tmp_path: Path, work: Path, output_type: str) -> None:
    made = replace(dense(output_type), similarity="euclidean")
    names = [f"id-{number}" for number in range(3)]
    cells = {"year": [1, None, 3], "when": [datetime.date(2026, 1, 2), None, None], "share": [float("nan"), 0.5, None]}
    given = [
        (rows(0, 3, ids=names, **cells), vectors(3, made)),
        (rows(3, 0), []),
        (rows(3, 300), vectors(300, made, 1)),
    ]
    address = f"chroma:{tmp_path}/store?collection=docs"
    output = open_output(address)
    assert output.direct
    assert written_directly(output, given, made, work) == []
    found = kept(address)
    by_id = dict(zip(found.ids, range(len(found)), strict=True))
    assert sorted(by_id) == sorted(str(one) for one in ids(given))
    order = [by_id[str(one)] for one in ids(given)]
    assert [found.texts[at] for at in order] == [text for some, _ in given for text in some.texts]
    assert [found.metadata[at] for at in order][:4] == [
        {"year": 1, "when": "2026-01-02"},
        {"share": 0.5},
        {"year": 3},
        {},
    ]
    expected = np.concatenate([np.asarray(given[0][1]), np.asarray(given[2][1])]).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(found.vectors)[order], expected)
    store = open_store(address)
    schema = store.describe().schema
    store.close()
    assert schema is not None
    assert (schema.metric, schema.dimensions, schema.kind) == ("l2", WIDTH, "dense")


def written_directly(output: Any, given: Any, made: Made, work: Path) -> list[Path]:
    """As a job does it: no file of a part comes to be."""
    output.prepare(made)
    for shard in given:
        output.write(work / "part", *shard, made)
    assert not (work / "part").exists()
    found: list[Path] = output.assemble([], made)
    return found


def test_a_shard_that_comes_again_and_an_output_that_was_sent_to_another_process(tmp_path: Path, work: Path) -> None:
    made = dense()
    given = shards(made, 4, 3, year=[1, 2, 3, 4])
    address = f"chroma:{tmp_path}/store?collection=docs"
    output = open_output(address)
    written_directly(output, given[:1], made, work)
    other = pickle.loads(pickle.dumps(output))
    written_directly(other, [given[0], *given], made, work)
    found = kept(address)
    assert found.ids == [str(one) for one in ids(given)]
    np.testing.assert_allclose(np.asarray(found.vectors), stacked(given), rtol=1e-6)
    # An open connection is not sent along.
    output.prepare(made)
    copied = pickle.loads(pickle.dumps(output))
    copied.write(work / "part", *given[0], made)
    copied.assemble([], made)
    output.assemble([], made)
    assert len(kept(address)) == 7


def test_sparse_and_multi_vectors_in_qdrant(tmp_path: Path, work: Path) -> None:
    for made in (SPARSE, MULTI):
        # Qdrant has no multi-vector without vectors.
        given = [(rows(1, 4), [one for one in vectors(12, made) if len(one[0] if made is SPARSE else one)][:4])]
        address = f"qdrant:{tmp_path}/{made.task}?collection=docs"
        written_directly(open_output(address), given, made, work)
        found = kept(address)
        assert found.ids == [1, 2, 3, 4]
        assert found.vectors is not None
        for stored, expected in zip(found.vectors, given[0][1], strict=True):
            if made is SPARSE:
                np.testing.assert_array_equal(stored.indices, expected.indices)
                np.testing.assert_allclose(stored.values, expected.values, rtol=1e-6)
            else:
                np.testing.assert_allclose(stored, expected, rtol=1e-6)


def test_what_a_store_does_not_hold(tmp_path: Path, work: Path) -> None:
    output = open_output(f"chroma:{tmp_path}/store?collection=docs")
    with pytest.raises(InvalidRequest, match="holds dense vectors, not sparse embeddings"):
        output.prepare(SPARSE)
    with pytest.raises(InvalidRequest, match="float32, float16, int8, uint8, not ubinary"):
        output.prepare(dense("ubinary"))
    written_directly(output, shards(dense(), 2), dense(), work)
    wider = Made("embed", 2 * WIDTH, "float32", "float32", "cosine", "another/model")
    with pytest.raises(StoreError, match=f"{WIDTH}"):
        open_output(f"chroma:{tmp_path}/store?collection=docs").prepare(wider)
    output.assemble([], dense())


def test_a_table_of_lancedb(tmp_path: Path, work: Path) -> None:
    made = dense()
    given = shards(made, 3, 2, year=[1, 2, 3])
    address = f"lancedb:{tmp_path}/store?collection=docs"
    written_directly(open_output(address), given, made, work)
    found = kept(address)
    assert [str(one) for one in found.ids] == [str(one) for one in ids(given)]
    np.testing.assert_array_equal(np.asarray(found.vectors), stacked(given))
    assert [one["year"] for one in found.metadata] == [1, 2, 3, 1, 2]
