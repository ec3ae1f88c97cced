"""PostgreSQL with pgvector, the real server: the contract for both ways of migrating, and what only a database has."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from lemni.errors import CannotSwitch, StoreError
from lemni.stores import open_store
from lemni.stores.base import Page, Schema, Store
from lemni.types import SparseVector
from tests.stores.contract import WIDTH, StoreContract, by_id, page
from tests.stores.postgres_server import PostgresServer, postgres, running_postgres

__all__ = ["postgres"]
numbers = itertools.count()


@pytest.fixture
def opened(postgres: PostgresServer) -> Iterator[Callable[..., Store]]:
    stores: list[Store] = []

    def one(collection: str, **options: str) -> Store:
        stores.append(open_store(postgres.address(collection, **options)))
        return stores[-1]

    yield one
    for store in stores:
        store.close()


class TestText(StoreContract):
    @pytest.fixture
    def opened(self, opened: Callable[..., Store]) -> Callable[[str], Store]:
        return opened


class TestWholeNumbers(StoreContract):
    names = staticmethod(lambda number: 7 * number)

    @pytest.fixture
    def opened(self, opened: Callable[..., Store]) -> Callable[[str], Store]:
        return lambda collection: opened(collection, idtype="bigint")


class TestUuidsInHalfPrecision(StoreContract):
    names = staticmethod(lambda number: f"00000000-0000-4000-8000-{number:012d}")
    atol = 5e-4

    @pytest.fixture
    def opened(self, opened: Callable[..., Store]) -> Callable[[str], Store]:
        return lambda collection: opened(collection, idtype="uuid", type="halfvec", schema="public")
