"""The store over the official client, against a server that does what OpenSearch 3 is documented to do: no real one can
be had from a package index."""

from __future__ import annotations

import base64
from typing import Any, ClassVar

import pytest

from lemni.errors import StoreError
from lemni.stores import open_store
from lemni.stores.base import Schema
from tests.stores.contract import WIDTH
from tests.stores.elastic_contract import ElasticContract
from tests.stores.elastic_server import ElasticServer


class TestOpenSearch(ElasticContract):
    flavour = "opensearch"
    dense: ClassVar[dict[str, Any]] = {
        "type": "knn_vector",
        "dimension": 3,
        "method": {"name": "hnsw", "engine": "faiss", "space_type": "innerproduct", "parameters": {"m": 24}},
    }

    def test_the_kind_of_index_is_as_in_the_old_one(self, server: ElasticServer, opened: Any) -> None:
        server.create(
            "theirs", {"settings": {"index": {"knn": True}}, "mappings": {"properties": {"vector": self.dense}}}
        )
        opened("ours").create(Schema(WIDTH), like=opened("theirs"))
        assert server.indexes["ours"].mappings["properties"]["vector"] == {
            "type": "knn_vector",
            "dimension": WIDTH,
            "method": {"name": "hnsw", "engine": "faiss", "space_type": "cosinesimil", "parameters": {"m": 24}},
        }

    def test_the_engine_is_an_option(self, server: ElasticServer, opened: Any) -> None:
        opened("docs").create(Schema(WIDTH))
        opened("fast", "&engine=faiss").create(Schema(WIDTH))
        engines = [one.mappings["properties"]["vector"]["method"]["engine"] for one in server.indexes.values()]
        assert engines == ["lucene", "faiss"]
        with pytest.raises(StoreError, match="'nmslib' is none of lucene, faiss"):
            opened("docs", "&engine=nmslib")


def test_user_and_password(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ElasticServer("opensearch", "Basic " + base64.b64encode(b"me:s3cret word").decode())
    where = f"127.0.0.1:{server.port}?collection=docs"
    assert not open_store(f"opensearch://me:s3cret%20word@{where}").exists()
    monkeypatch.setenv("OPENSEARCH_PASSWORD", "s3cret word")
    assert not open_store(f"opensearch://me@{where}").exists()
    monkeypatch.setenv("OPENSEARCH_PASSWORD", "wr0ng")
    with pytest.raises(StoreError, match="401") as caught:
        open_store(f"opensearch://me@{where}").describe()
    assert "wr0ng" not in str(caught.value)
    server.close()


def test_a_server_that_does_not_answer_is_named() -> None:
    server = ElasticServer("opensearch")
    server.close()
    with pytest.raises(StoreError, match=rf"127\.0\.0\.1:{server.port}, index docs: .*refused"):
        open_store(f"opensearch://127.0.0.1:{server.port}?collection=docs").exists()
