"""Collections to migrate, filled with a fast real model's vectors, and the tiny model they are migrated to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lemni
from lemni.migrate.migration import Migration
from lemni.stores import open_store
from lemni.stores.base import Page, Schema
from tests.bulk.conftest import FAST, texts
from tests.leftovers import swept
from tests.tasks.tiny import save_bert

__all__ = ["swept"]

Entry = tuple[str | None, dict[str, Any], np.ndarray]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a BERT of 32 dimensions."""
    return str(save_bert(tmp_path_factory.mktemp("models") / "tiny-bert"))


@pytest.fixture(scope="session")
def old_vectors() -> np.ndarray:
    """Of `texts(300)`, by the model that collections are migrated from."""
    with lemni.load(FAST) as model:
        return model.embed(texts(300))


@pytest.fixture(scope="session")
def fill(old_vectors: np.ndarray) -> Callable[..., Page]:
    """Fills the collection at an address; returns what is in it."""

    def fill(address: str, count: int = 300, names: Callable[[int], Any] = "doc-{}".format) -> Page:
        entries = Page(
            [names(number) for number in range(count)],
            list(texts(300)[:count]),
            [{"year": 1900 + at % 100, "score": at / 8, "good": at % 3 == 0, "who": f"Ä {at}"} for at in range(count)],
            old_vectors[:count],
        )
        store = open_store(address)
        store.create(Schema(old_vectors.shape[1]))
        store.write(entries)
        store.close()
        return entries

    return fill


def dump(address: str) -> dict[Any, Entry]:
    """All that a collection holds, by id."""
    store = open_store(address)
    found: dict[Any, Entry] = {}
    for page in store.pages(100, vectors=True):
        assert page.vectors is not None
        found.update(
            (one, (text, data, np.asarray(vector)))
            for one, text, data, vector in zip(page.ids, page.texts, page.metadata, page.vectors, strict=True)
        )
    store.close()
    return found


def check(found: dict[Any, Entry], entries: Page, vectors: np.ndarray, atol: float = 1e-6) -> None:
    """These entries with these vectors, and nothing else."""
    assert {*found} == {*entries.ids}
    for at, name in enumerate(entries.ids):
        text, data, vector = found[name]
        assert (text, data) == (entries.texts[at], entries.metadata[at])
        np.testing.assert_allclose(vector, vectors[at], atol=atol)


def embedded(model: str, given: list[Any]) -> np.ndarray:
    """The reference: what the library gives for documents."""
    with lemni.load(model) as loaded:
        return loaded.embed(given, input_type="document")


def failed(migration: Migration) -> dict[str, str]:
    """What a verification that ran found wrong."""
    outcome = migration.verify()
    assert outcome.verification is not None
    assert outcome.ok == outcome.verification.passed
    return {one.name: one.found for one in outcome.verification.checks if one.passed is False}
