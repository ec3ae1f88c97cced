"""The store over the official client, against a server that does what Elasticsearch 9 is documented to do: no real
one can be had from a package index."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from lemni.errors import StoreError
from lemni.stores import open_store
from lemni.stores.base import Schema
from tests.stores.contract import WIDTH
from tests.stores.elastic_contract import ElasticContract
from tests.stores.elastic_server import ElasticServer


class TestElasticsearch(ElasticContract):
    flavour = "elasticsearch"
    dense: ClassVar[dict[str, Any]] = {
        "type": "dense_vector",
        "dims": 3,
        "index": True,
        "similarity": "max_inner_product",
        "index_options": {"type": "hnsw", "m": 24},
    }

    def test_the_kind_of_index_is_as_in_the_old_one(self, server: ElasticServer, opened: Any) -> None:
        server.create("theirs", {"mappings": {"properties": {"vector": self.dense}}})
        new = opened("ours")
        new.create(Schema(WIDTH), like=opened("theirs"))
        assert server.indexes["ours"].mappings["properties"]["vector"] == {
            "type": "dense_vector",
            "dims": WIDTH,
            "index": True,
            "similarity": "cosine",
            "index_options": {"type": "hnsw", "m": 24},
        }


@pytest.fixture
def locked(request: pytest.FixtureRequest) -> Iterator[ElasticServer]:
    server = ElasticServer("elasticsearch", request.param)
    yield server
    server.close()


BASIC = "Basic " + base64.b64encode(b"me:s3cret word").decode()


@pytest.mark.parametrize("locked", [BASIC], indirect=True)
def test_user_and_password(locked: ElasticServer, monkeypatch: pytest.MonkeyPatch) -> None:
    where = f"127.0.0.1:{locked.port}?collection=docs"
    assert not open_store(f"elasticsearch://me:s3cret%20word@{where}").exists()
    monkeypatch.setenv("ELASTIC_PASSWORD", "s3cret word")
    assert not open_store(f"elasticsearch://me@{where}").exists()
    monkeypatch.setenv("ELASTIC_PASSWORD", "wr0ng")
    with pytest.raises(StoreError, match="401") as caught:
        open_store(f"elasticsearch://me@{where}").describe()
    assert "wr0ng" not in str(caught.value)


@pytest.mark.parametrize("locked", ["ApiKey abc"], indirect=True)
def test_the_key_of_the_environment(locked: ElasticServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELASTIC_API_KEY", "abc")
    assert not open_store(f"elasticsearch://127.0.0.1:{locked.port}?collection=docs").exists()


def test_a_server_that_does_not_answer_is_named() -> None:
    server = ElasticServer("elasticsearch")
    server.close()
    with pytest.raises(StoreError, match=rf"127\.0\.0\.1:{server.port}, index docs: .*refused"):
        open_store(f"elasticsearch://127.0.0.1:{server.port}?collection=docs").exists()
