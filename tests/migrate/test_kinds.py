"""Term weights and vectors per token: migrated and verified like dense vectors, but for their neighbours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lemni
from lemni.errors import InvalidRequest
from lemni.migrate import How, Migration, migrate
from lemni.stores import open_store
from lemni.stores.base import Page
from lemni.types import Task
from tests.bulk.conftest import texts
from tests.tasks.test_bge_m3 import save_m3

from .conftest import failed


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One that gives all three."""
    folder = tmp_path_factory.mktemp("models") / "m3"
    save_m3(folder)
    return str(folder)


@pytest.mark.parametrize("task", ["sparse", "multi_vector"])
def test_other_kinds_of_vectors(
    task: Task, model: str, fill: Callable[..., Page], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    entries = fill("faiss:data?collection=docs", count=25)
    how = How(task=task, batch=10)
    done = migrate("faiss:data?collection=docs", "qdrant:q?collection=new", model=model, how=how)
    assert done.ok
    assert done.verification is not None
    assert done.verification.numbers["cosine_min"] > 0.99999
    assert "index_recall" not in done.verification.numbers
    store = open_store("qdrant:q?collection=new")
    found = store.fetch(entries.ids)
    assert (found.ids, found.texts, found.metadata) == (entries.ids, entries.texts, entries.metadata)
    assert found.vectors is not None
    with lemni.load(model) as loaded:
        if task == "sparse":
            expected = loaded.sparse(texts(25))
            for one, two in zip(found.vectors, expected, strict=True):
                assert one.indices.tolist() == two.indices.tolist()
                np.testing.assert_allclose(one.values, two.values, atol=1e-6)
        else:
            for one, two in zip(found.vectors, loaded.multi_vector(texts(25)), strict=True):
                np.testing.assert_allclose(one, two, atol=1e-6)
    changed = Page(found.ids[:1], found.texts[:1], found.metadata[:1], [found.vectors[1]])
    store.write(changed)
    store.close()
    migration = Migration("faiss:data?collection=docs", "qdrant:q?collection=new", model, how)
    assert list(failed(migration)) == ["vectors"]


def test_a_store_that_cannot_hold_them_is_refused(
    model: str, fill: Callable[..., Page], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fill("faiss:data?collection=docs", count=5)
    with pytest.raises(InvalidRequest, match="holds dense vectors, not sparse ones"):
        migrate("faiss:data?collection=docs", model=model, how=How(task="sparse"))
