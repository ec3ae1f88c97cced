"""A migration whose names were migrated before: its journal is believed only as far as the stores agree."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lemni.errors import ConfigError
from lemni.migrate import How, Limits, Migration, migrate
from lemni.stores import open_store
from lemni.stores.base import Page
from tests.bulk.conftest import FAST, texts

from .conftest import check, dump, embedded
from .test_migrate import aliased

Fill = Callable[..., Page]
SOON = How(batch=64, limits=Limits(sample=20, queries=5))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", ["faiss", "chroma", "sqlite-vec", "qdrant"])
def test_there_and_back_and_there_again(kind: str, fill: Fill, tiny: str, old_vectors: np.ndarray) -> None:
    if kind == "sqlite-vec":
        source = f"sqlite-vec:{Path.cwd()}/s.db?collection=docs"
        entries = fill(source)
    else:
        source, entries = aliased(kind, fill)
    vectors = {tiny: embedded(tiny, texts(300)), FAST: old_vectors}
    for turn, model in enumerate((tiny, FAST, tiny, FAST)):
        done = migrate(source, model=model, how=SOON)
        assert done.switched
        assert done.summary is not None
        assert done.summary.written == 300
        check(dump(source), entries, vectors[model])
        assert any("a new migration begins" in line for line in done.said) == (turn > 1)
        again = migrate(source, model=model, how=SOON)
        assert again.summary is None
        assert again.said[-1].startswith("nothing to do: docs is the new collection already")
        assert Migration(source, None, model, SOON).drop_old().state.phase == "dropped"
        assert migrate(source, model=model, how=SOON).said[-1].startswith("nothing to do: ")
        check(dump(source), entries, vectors[model])
    folder = Migration(source, None, tiny).places.folder
    assert json.loads((folder / "migration-1.json").read_text())["phase"] == "dropped"
    assert json.loads((folder / "migration.json").read_text())["phase"] == "dropped"
    for name in ("job.manifest.json", "job-1.manifest.json", "report.md", "report-1.md"):
        assert (folder / name).exists(), name


def test_a_collection_of_as_many_dimensions_is_another_one(fill: Fill, old_vectors: np.ndarray) -> None:
    """The same names and the same model; what is behind the name has the same shape and other vectors."""
    source = "faiss:data?collection=docs"
    entries = fill(source)
    store = open_store(source)
    turned = np.roll(np.asarray(entries.vectors), 1, axis=1)
    assert migrate(source, model=FAST, how=SOON).switched
    store.write(Page(entries.ids, entries.texts, entries.metadata, turned))
    with pytest.raises(ConfigError, match="the old collection stays: docs has other vectors than the migration left"):
        Migration(source, None, FAST, SOON).drop_old()
    assert len(dump("faiss:data?collection=docs_before_docs__tokenlearn_static_model")) == 300
    open_store("faiss:data?collection=docs_before_docs__tokenlearn_static_model").drop()
    done = migrate(source, model=FAST, how=SOON)
    assert done.said[0].startswith("a new migration begins: docs has other vectors than the migration left")
    check(dump(source), entries, old_vectors)
    # New texts under the old ids are the application's, and no reason to begin anew.
    some = slice(0, 5)
    open_store(source).write(Page(entries.ids[some], ["new"] * 5, entries.metadata[some], turned[some]))
    assert migrate(source, model=FAST, how=SOON).said[-1].startswith("nothing to do: ")


def test_a_target_that_is_gone_keeps_the_source(fill: Fill, tiny: str) -> None:
    source, target = "faiss:data?collection=docs", "faiss:other?collection=new"
    fill(source, count=30)
    assert migrate(source, target, model=tiny, how=SOON).ok
    open_store(target).drop()
    with pytest.raises(ConfigError, match="the old collection stays: new is not there any more"):
        Migration(source, target, tiny, SOON).drop_old()
    assert len(dump(source)) == 30
    assert migrate(source, target, model=tiny, how=SOON).ok
    assert Migration(source, target, tiny, SOON).drop_old().state.phase == "dropped"
    assert not open_store(source).exists()
    assert migrate(source, target, model=tiny, how=SOON).said[-1].startswith("nothing to do: ")
    entries = fill(source, count=20)
    with pytest.raises(ConfigError, match="30 entries that this migration has not written"):
        migrate(source, target, model=tiny, how=SOON)
    assert migrate(source, target, model=tiny, how=How(overwrite=True)).ok
    check(dump(target), entries, embedded(tiny, texts(20)))
