"""Migrations within a store and between stores, against what the library embeds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lemni.errors import ConfigError, InvalidRequest, StoreError
from lemni.migrate import How, Limits, Migration, migrate
from lemni.stores import open_store
from lemni.stores.base import Page
from tests.bulk.conftest import FAST, texts

from .conftest import check, dump, embedded, failed

Fill = Callable[..., Page]

FOLDERS = ["chroma", "qdrant", "faiss", "lancedb"]
ALIASES = {"qdrant"}  # the others rename


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def new_vectors(tiny: str) -> np.ndarray:
    return embedded(tiny, texts(300))


def aliased(kind: str, fill: Fill) -> tuple[str, Page]:
    """A filled collection, and the address that applications have: an alias of it, where the store has such."""
    place = f"{kind}:{Path.cwd()}/data"  # Chroma keeps what was opened by a relative name, wherever that was
    if kind not in ALIASES:
        return f"{place}?collection=docs", fill(f"{place}?collection=docs")
    entries = fill(f"{place}?collection=docs_v1")
    store = open_store(f"{place}?collection=docs_v1")
    store.switch("docs")
    store.close()
    return f"{place}?collection=docs", entries


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_collection_is_migrated_and_undone_and_dropped(
    kind: str, fill: Fill, tiny: str, new_vectors: np.ndarray, old_vectors: np.ndarray
) -> None:
    source, entries = aliased(kind, fill)
    done = migrate(source, model=tiny, how=How(batch=64))
    assert done.ok
    assert done.switched
    assert done.summary is not None
    assert (done.summary.rows, done.summary.written, done.summary.rejected) == (300, 300, 0)
    assert done.verification is not None
    numbers = done.verification.numbers
    assert (numbers["entries"], numbers["ids_missing"], numbers["ids_extra"]) == (300, 0, 0)
    assert numbers["cosine_min"] > 0.9999
    assert numbers["index_recall"] > 0.99
    # The expected overlap, from the matrices.
    assert 0 < numbers["overlap"] < 1
    check(dump(source), entries, new_vectors)
    assert open_store(source).describe().schema is not None
    kept = source.replace("=docs", f"={done.state.old}")
    check(dump(kept), entries, old_vectors)
    # Given again it changes nothing.
    again = migrate(source, model=tiny, how=How(batch=64))
    assert again.summary is None
    assert again.switched
    check(dump(source), entries, new_vectors)
    assert not failed(Migration(source, None, tiny, How(batch=64)))
    # Back, and there again without embedding anew.
    undone = Migration(source, None, tiny, How(batch=64)).roll_back()
    assert undone.state.phase == "undone"
    check(dump(source), entries, old_vectors)
    with pytest.raises(ConfigError, match="nothing was switched"):
        Migration(source, None, tiny, How(batch=64)).roll_back()
    with pytest.raises(ConfigError, match="stays"):
        Migration(source, None, tiny, How(batch=64)).drop_old()
    third = migrate(source, model=tiny, how=How(batch=64))
    assert third.summary is not None
    assert third.summary.seconds == 0
    check(dump(source), entries, new_vectors)
    dropped = Migration(source, None, tiny, How(batch=64)).drop_old()
    assert dropped.state.phase == "dropped"
    assert not open_store(source.replace("=docs", f"={third.state.old}")).exists()
    check(dump(source), entries, new_vectors)
    with pytest.raises(ConfigError, match="dropped"):
        Migration(source, None, tiny, How(batch=64)).roll_back()


def test_neighbours_and_index_are_measured_as_numpy_would(
    fill: Fill, tiny: str, old_vectors: np.ndarray, new_vectors: np.ndarray
) -> None:
    fill("faiss:data?collection=docs", count=120)
    done = migrate("faiss:data?collection=docs", model=tiny, how=How(limits=Limits(sample=40, k=5, queries=40)))
    assert done.verification is not None

    def nearest(vectors: np.ndarray) -> list[set[int]]:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        scores = unit @ unit.T
        np.fill_diagonal(scores, -np.inf)
        return [set(row) for row in np.argsort(-scores, axis=1)[:, :5].tolist()]

    old, new = nearest(old_vectors[:120].astype(np.float64)), nearest(new_vectors[:120].astype(np.float64))
    shares = [len(one & two) / 5 for one, two in zip(old, new, strict=True)]
    # Each query's share, whichever entries were drawn.
    assert len(done.verification.samples["overlap"]) == 40
    possible = sorted(shares)
    assert sum(possible[:40]) - 1e-9 <= sum(done.verification.samples["overlap"]) <= sum(possible[-40:]) + 1e-9
    whole = migrate(
        "faiss:data?collection=docs", "faiss:more?collection=docs", model=FAST, how=How(limits=Limits(120, 5, 120))
    )
    assert whole.verification is not None
    assert whole.state.alias is None
    assert not whole.switched
    # docs is the tiny model's now; FAST again is what the old ones were.
    assert whole.verification.numbers["overlap"] == pytest.approx(np.mean(shares))


def test_between_stores_and_from_files(fill: Fill, tiny: str, new_vectors: np.ndarray) -> None:
    entries = fill(f"chroma:{Path.cwd()}/data?collection=docs", count=50)
    done = migrate(
        f"chroma:{Path.cwd()}/data?collection=docs", "faiss:other?collection=new", model=tiny, how=How(batch=7)
    )
    assert done.ok
    assert not done.switched
    assert "different stores" in done.said[-1]
    check(dump("faiss:other?collection=new"), entries, new_vectors[:50])
    rows = [
        {"key": n, "body": text, **data}
        for n, (text, data) in enumerate(zip(entries.texts, entries.metadata, strict=True))
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = migrate("rows.jsonl", "qdrant:q?collection=new", model=tiny, how=How(text="body", id="key", batch=7))
    assert done.ok
    check(dump("qdrant:q?collection=new"), replace(entries, ids=list(range(50))), new_vectors[:50])
    with pytest.raises(ConfigError, match="no vector store"):
        migrate("rows.jsonl", model=tiny)


def test_texts_of_a_file_are_joined(tiny: str, new_vectors: np.ndarray, fill: Fill) -> None:
    entries = fill("faiss:data?collection=docs", count=20)
    store = open_store("faiss:data?collection=bare")
    described = open_store("faiss:data?collection=docs").describe()
    assert described.schema is not None
    store.create(described.schema)
    store.write(replace(entries, texts=[None] * 20))
    with pytest.raises(InvalidRequest, match=r"none of its 20 entries has a text"):
        migrate("faiss:data?collection=bare", model=tiny)
    lines = [json.dumps({"id": name, "text": text}) for name, text in zip(entries.ids, entries.texts, strict=True)]
    Path("texts.jsonl").write_text("\n".join(lines[:-1]))
    with pytest.raises(InvalidRequest, match=r"1 of 20 entries have no text: 'doc-19'"):
        migrate("faiss:data?collection=bare", model=tiny, how=How(texts_from="texts.jsonl"))
    assert not open_store("faiss:data?collection=bare__tiny_bert").exists()
    Path("texts.jsonl").write_text("\n".join(lines))
    assert migrate("faiss:data?collection=bare", model=tiny, how=How(texts_from="texts.jsonl")).switched
    check(dump("faiss:data?collection=bare"), entries, new_vectors[:20])
    Path("texts.jsonl").write_text("\n".join([*lines, json.dumps({"id": "doc-3", "text": "another"})]))
    with pytest.raises(InvalidRequest, match="'doc-3' stands there twice"):
        Migration("faiss:data?collection=docs", None, tiny, How(texts_from="texts.jsonl")).run()


def test_entries_without_a_text_are_named_or_left_out(fill: Fill, tiny: str, new_vectors: np.ndarray) -> None:
    entries = fill("faiss:data?collection=docs", count=30)
    holes = {4: None, 9: "", 17: "  \n"}
    open_store("faiss:data?collection=docs").write(
        replace(entries, texts=[holes.get(at, text) for at, text in enumerate(entries.texts)])
    )
    with pytest.raises(
        InvalidRequest, match=r"3 of 30 entries have no text: 'doc-4', 'doc-9', 'doc-17'\. .*--skip-missing"
    ):
        migrate("faiss:data?collection=docs", model=tiny)
    done = migrate("faiss:data?collection=docs", model=tiny, how=How(skip_missing=True))
    assert done.switched
    assert done.summary is not None
    assert (done.summary.written, done.summary.rejected) == (27, 3)
    rejects = [json.loads(line) for line in Path(done.summary.rejects or "").read_text().splitlines()]
    assert [one["id"] for one in rejects] == ["doc-4", "doc-9", "doc-17"]
    good = [at for at in range(30) if at not in holes]
    left = Page(*([column[at] for at in good] for column in (entries.ids, entries.texts, entries.metadata)))
    check(dump("faiss:data?collection=docs"), left, new_vectors[good])


def test_what_is_wrong_is_found_and_not_switched(fill: Fill, tiny: str, old_vectors: np.ndarray) -> None:
    source, how = "faiss:data?collection=docs", How(switch=False, limits=Limits(sample=300))
    entries = fill(source)
    first = migrate(source, model=tiny, how=how)
    assert first.ok
    assert first.state.phase == "verified"
    target = open_store("faiss:data?collection=docs__tiny_bert")
    whole = next(target.pages(300, vectors=True))
    assert whole.vectors is not None

    def change(at: int, **changed: Any) -> Page:
        one = Page([whole.ids[at]], [whole.texts[at]], [whole.metadata[at]], np.asarray(whole.vectors)[at : at + 1])
        return replace(one, **changed)

    expected = {
        "counts": change(0, ids=["more"]),
        "texts and metadata": change(5, metadata=[{**whole.metadata[5], "year": 1}]),
        "vectors": change(8, vectors=np.asarray(whole.vectors)[9:10]),
    }
    for name, page in expected.items():
        target.write(page)
        found = failed(Migration(source, None, tiny, how))
        assert name in found
        if name == "counts":
            assert found["counts"] == "301 entries"
            assert found["ids"] == "1 too many: 'more'"
        elif name == "vectors":
            assert repr(whole.ids[8]) in found[name]
        else:
            assert f"metadata 'year' of {whole.ids[5]!r}" in found[name]
    outcome = migrate(source, model=tiny)  # which would switch
    assert not outcome.ok
    assert outcome.state.phase == "failed"
    check(dump(source), entries, old_vectors)
    report = (outcome.places.folder / "report.md").read_text()
    assert "verification FAILED, not switched" in report
    assert "1 too many: 'more'" in report
    with pytest.raises(ConfigError, match="did not pass its verification"):
        Migration(source, None, tiny).drop_old()
    # Missing ones are named as well.
    open_store(source).write(Page(["late-1", "late-2"], ["a", "b"], [{}, {}], old_vectors[:2]))
    found = failed(Migration(source, None, tiny, how))
    assert found["ids"] in ("2 missing: 'late-1', 'late-2'; 1 too many: 'more'",)


def test_catching_up_embeds_what_is_new_or_changed(fill: Fill, tiny: str) -> None:
    source = "faiss:data?collection=docs"
    entries = fill(source, count=100)
    assert migrate(source, model=tiny, how=How(switch=False, batch=32)).ok
    store = open_store(source)
    changed = Page(
        ["doc-7", "doc-8", "new-1"],
        ["another text", entries.texts[8], "a new text"],
        [entries.metadata[7], {"year": 3}, {"tag": "x"}],
        np.asarray(entries.vectors)[:3],
    )
    store.write(changed)
    store.close()
    plain = migrate(source, model=tiny, how=How(switch=False, batch=32))
    assert not plain.ok
    done = migrate(source, model=tiny, how=How(catch_up=True, batch=32))
    assert done.summary is not None
    assert done.summary.rows == 3
    assert done.switched
    names = [*entries.ids, "new-1"]
    given = {**dict(zip(entries.ids, entries.texts, strict=True)), **dict(zip(changed.ids, changed.texts, strict=True))}
    data = {
        **dict(zip(entries.ids, entries.metadata, strict=True)),
        **dict(zip(changed.ids, changed.metadata, strict=True)),
    }
    expected = Page(names, [given[name] for name in names], [data[name] for name in names])
    check(dump(source), expected, embedded(tiny, list(expected.texts)))
    # After the switch what is kept is still looked at, by its name now.
    assert migrate(source, model=tiny, how=How(catch_up=True, batch=32)).summary.rows == 0  # type: ignore[union-attr]


def test_what_must_not_be_overwritten_is_not(fill: Fill, tiny: str) -> None:
    fill("faiss:data?collection=docs", count=20)
    fill("faiss:data?collection=other", count=10)
    with pytest.raises(ConfigError, match=r"64 dimensions.*32 dimensions"):
        migrate("faiss:data?collection=docs", "faiss:data?collection=other", model=tiny)
    with pytest.raises(ConfigError, match="10 entries that this migration has not written"):
        migrate("faiss:data?collection=docs", "faiss:data?collection=other", model=FAST, how=How(folder="f"))
    assert len(dump("faiss:data?collection=other")) == 10
    with pytest.raises(ConfigError, match="the same collection"):
        migrate("faiss:data?collection=docs", "faiss:data?collection=docs", model=tiny)
    with pytest.raises(StoreError, match="nowhere"):
        migrate("faiss:data?collection=nowhere", model=tiny)
    with pytest.raises(StoreError, match=r"'doc-0'.* whole number"):
        migrate("faiss:data?collection=docs", "milvus:m.db?collection=x&idtype=int", model=tiny, how=How(folder="m"))
    done = migrate("faiss:data?collection=docs", "faiss:data?collection=other", model=tiny, how=How(overwrite=True))
    assert done.switched
    assert len(dump("faiss:data?collection=docs")) == 20
    with pytest.raises(ConfigError, match="nothing of it is overwritten"):
        migrate("faiss:data?collection=docs", "faiss:data?collection=other", model=tiny, how=How(overwrite=True))


def test_another_migration_in_the_folder_is_refused(fill: Fill, tiny: str) -> None:
    fill("faiss:data?collection=docs", count=20)
    migrate("faiss:data?collection=docs", model=tiny, how=How(folder="work", switch=False))
    with pytest.raises(ConfigError, match="holds the migration of faiss:data"):
        migrate("faiss:data?collection=docs", model=FAST, how=How(folder="work"))
    with pytest.raises(InvalidRequest, match=r"shard_rows was .* and is 3"):
        migrate("faiss:data?collection=docs", model=tiny, how=How(folder="work", batch=3))
    shutil.rmtree("work")
    with pytest.raises(ConfigError, match="not written"):
        migrate("faiss:data?collection=docs", model=tiny, how=How(folder="work"))
