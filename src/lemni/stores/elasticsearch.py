"""Elasticsearch 8 and 9: `elasticsearch://[USER[:PASSWORD]@]HOST:9200?collection=INDEX`.

Checked against its official client and documented API only; no server could be run.

Options: `text` and `vector`, the fields (`elastic_like.py`); `https=true` (by default on port 443 and with
`ca_certs`), `ca_certs`, a file. The key comes from ELASTIC_API_KEY, or with a user in the address the password from
ELASTIC_PASSWORD. A server takes the client of its own major version, or of the one before: `pip install
'elasticsearch<9'` for 8.

Dense vectors are a `dense_vector` field. The metric "dot" is `max_inner_product`, which ranks like `dot_product` and
does not refuse vectors of another length than 1. How the field is indexed is left to the server (from 8.14 on codes of
one byte, in 9 of one bit for wide vectors) or as in the index that the new one is made like; what is stored are full
floats. Sparse vectors are a `sparse_vector` field.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

import numpy as np

from lemni.errors import missing_extra
from lemni.stores.base import Metric, Schema
from lemni.stores.checks import terms
from lemni.stores.elastic_like import BULK_BYTES, ElasticLike
from lemni.stores.elastic_pages import KEEP_ALIVE, WINDOW
from lemni.types import SparseVector

_SIMILARITIES: dict[Metric, str] = {"cosine": "cosine", "dot": "max_inner_product", "l2": "l2_norm"}
_METRICS: dict[str, Metric] = {**{name: metric for metric, name in _SIMILARITIES.items()}, "dot_product": "dot"}


class Elasticsearch(ElasticLike):
    scheme = "elasticsearch"
    # From 9.2 on a `_source` comes without vectors unless asked for in a way that 8 refuses; `fields` works in both.
    vectors_by_fields: ClassVar[bool] = True

    def _connect(self, url: str) -> Any:
        try:
            import elasticsearch
        except ImportError:
            raise missing_extra("elasticsearch", "elasticsearch", "Elasticsearch as a vector store") from None
        login = self._login("ELASTIC_PASSWORD")
        how: dict[str, Any] = {"ca_certs": self.place.option("ca_certs")} if self.place.option("ca_certs") else {}
        if login:
            how["basic_auth"] = login
        elif key := os.environ.get("ELASTIC_API_KEY"):
            how["api_key"] = key
        return elasticsearch.Elasticsearch(url, request_timeout=60, retry_on_timeout=True, max_retries=3, **how)

    def _failures(self) -> tuple[type[Exception], ...]:
        import elasticsearch

        return elasticsearch.ApiError, elasticsearch.TransportError, elasticsearch.UnsupportedProductError

    def _mapping(self, schema: Schema, like: dict[str, Any]) -> dict[str, Any]:
        if schema.kind == "sparse":
            return {"type": "sparse_vector"}
        kept = {key: like[key] for key in ("index_options",) if key in like}
        similarity = _SIMILARITIES[schema.metric]
        return {"type": "dense_vector", "dims": schema.dimensions, "index": True, "similarity": similarity, **kept}

    def _schema_of(self, mapping: dict[str, Any]) -> Schema | None:
        if mapping.get("type") == "sparse_vector":
            return Schema(None, "dot", "sparse")
        if mapping.get("type") != "dense_vector":
            return None
        return Schema(mapping.get("dims"), _METRICS[mapping.get("similarity", "cosine")])

    def _nearest(self, vector: Any, k: int) -> dict[str, Any]:
        if isinstance(vector, SparseVector):
            return {"query": {"sparse_vector": {"field": self.vector_field, "query_vector": terms(vector)}}}
        asked = {"field": self.vector_field, "query_vector": np.asarray(vector, np.float32).tolist(), "k": k}
        return {"knn": {**asked, "num_candidates": min(max(10 * k, 100), WINDOW)}}

    def _open_pit(self) -> str:
        return str(self.client.open_point_in_time(index=self.collection, keep_alive=KEEP_ALIVE)["id"])

    def _close_pit(self, pit: str) -> None:
        self.client.close_point_in_time(id=pit)

    def _bulk(self, actions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        from elasticsearch import helpers

        done: tuple[int, list[dict[str, Any]]] = helpers.bulk(
            self.client,
            actions,
            chunk_size=max(len(actions), 1),  # one request: each one waits for a refresh
            max_chunk_bytes=BULK_BYTES,
            max_retries=5,
            raise_on_error=False,
            refresh="wait_for",
        )
        return done[1]
