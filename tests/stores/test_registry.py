"""The table of stores, and what happens without their packages."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import tomllib

from lemni.errors import StoreError
from lemni.stores import STORES, as_id, is_store, open_store

# scheme: an address, the module that its package is imported by, and the package's name in pyproject.toml
PACKAGES = {
    "chroma": ("chroma:{folder}/chroma?collection=docs", "chromadb", "chromadb"),
    "qdrant": ("qdrant:{folder}/qdrant?collection=docs", "qdrant_client", "qdrant-client"),
    "postgresql": ("postgresql://127.0.0.1:1/db?collection=docs", "psycopg", "psycopg"),
    "lancedb": ("lancedb:{folder}/lance?collection=docs", "lancedb", "lancedb"),
    "milvus": ("milvus:{folder}/milvus.db?collection=docs", "pymilvus", "pymilvus"),
    "faiss": ("faiss:{folder}/faiss?collection=docs", "faiss", "faiss-cpu"),
    "sqlite-vec": ("sqlite-vec:{folder}/x.db?collection=docs", "sqlite_vec", "sqlite-vec"),
    "redis": ("redis://127.0.0.1:1?collection=docs", "redis", "redis"),
    "elasticsearch": ("elasticsearch://127.0.0.1:1?collection=docs", "elasticsearch", "elasticsearch"),
    "opensearch": ("opensearch://127.0.0.1:1?collection=docs", "opensearchpy", "opensearch-py"),
    "weaviate": ("weaviate://127.0.0.1:1?collection=docs", "weaviate", "weaviate-client"),
    "pinecone": ("pinecone://docs?collection=docs", "pinecone", "pinecone"),
}
WITHOUT = """
import json, sys
addresses, packages = json.loads(sys.argv[1])
sys.modules.update(dict.fromkeys(packages))  # importing them raises ImportError
from lemni.errors import MissingExtra
from lemni.stores import open_store
from lemni.stores.base import Schema
said = {}
for scheme, address in addresses.items():
    try:
        open_store(address).create(Schema(2))
        said[scheme] = "nothing"
    except MissingExtra as error:
        said[scheme] = str(error)
    except Exception as error:
        said[scheme] = f"{type(error).__name__}: {error}"
print(json.dumps(said))
"""


def extras() -> dict[str, list[str]]:
    """The requirements of each extra, as they stand in pyproject.toml."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    return dict(project["optional-dependencies"])


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("stores")
    addresses = {scheme: address.format(folder=folder) for scheme, (address, _, _) in PACKAGES.items()}
    asked = json.dumps([addresses, [module for _, module, _ in PACKAGES.values()]])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, asked], capture_output=True, text=True, check=True, timeout=120
    )
    return dict(json.loads(done.stdout))


def test_every_store_is_here() -> None:
    assert set(PACKAGES) == set(STORES)


@pytest.mark.parametrize("scheme", STORES)
def test_without_its_package_a_store_names_the_extra_that_has_it(said: dict[str, str], scheme: str) -> None:
    found = re.search(
        r"needs the package '(.*)', which is not installed\..*pip install 'lemni\[([\w-]+)\]'", said[scheme]
    )
    assert found, said[scheme]
    package, extra = found.groups()
    assert PACKAGES[scheme][2] in package
    assert any(re.match(rf"{PACKAGES[scheme][2]}(\[\w+\])?>=", one) for one in extras()[extra]), extras()[extra]


def test_an_unknown_store_is_named_with_those_there_are() -> None:
    for address in ("mongo://h/db?collection=c", "docs", "", "docs.parquet", "/tmp/docs"):
        assert not is_store(address)
        with pytest.raises(StoreError, match=r"no store is called '(mongo)?'; known: chroma, qdrant, postgresql"):
            open_store(address)
    with pytest.raises(StoreError) as caught:
        open_store("mongo://me:hunter2@h/db?collection=c")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["qdrant://h", "chroma:x", "pgvector://h/db", "postgres://h/db", "valkey://h", "sqlite_vec:x"]
)
def test_what_is_a_store(address: str) -> None:
    assert is_store(address)


def test_ids_as_a_store_takes_them() -> None:
    one = uuid.uuid4()
    for value, id_type, expected in [
        (7, "any", 7),
        ("7", "any", "7"),
        ("007", "any", "007"),
        (7, "str", "7"),
        ("é", "str", "é"),
        (7, "int", 7),
        ("7", "int", 7),
        (-7, "int", -7),
        (2**62, "int", 2**62),
        (7, "uuid-or-int", 7),
        ("7", "uuid-or-int", 7),
        (str(one), "uuid-or-int", str(one)),
        (one.hex.upper(), "uuid-or-int", str(one)),
    ]:
        found = as_id(value, id_type, "a store")
        assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    "value", ["x", "", "7.0", "007", "9" * 5000, "٣", "²", " 7"]
)  # digits of other scripts are no ids
def test_an_id_that_cannot_be_converted_is_named(value: str) -> None:
    for id_type, why in (("int", "no whole number"), ("uuid-or-int", "neither a UUID nor a whole number")):
        with pytest.raises(StoreError, match=rf"^a store: id {re.escape(repr(value)[:100])} is {why}"):
            as_id(value, id_type, "a store")


def test_two_ids_never_become_one() -> None:
    """Texts that only look like numbers stay apart, or are refused: "7" and "007" are two entries."""
    for id_type in ("int", "uuid-or-int"):
        converted = []
        for value in ("7", "007", "-7"):
            try:
                converted.append(as_id(value, id_type, "a store"))
            except StoreError:
                continue
        assert len(set(converted)) == len(converted)
