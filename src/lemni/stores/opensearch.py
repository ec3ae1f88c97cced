"""OpenSearch 2 and 3 with its k-NN plugin: `opensearch://[USER[:PASSWORD]@]HOST:9200?collection=INDEX`.

Checked against its official client and documented API only; no server could be run.

Options: `text` and `vector`, the fields (`elastic_like.py`); `engine=lucene` (the default) or `faiss`, of a new index;
`https=true` (by default on port 443 and with `ca_certs`), `ca_certs`, a file. With a user in the address the password
may come from OPENSEARCH_PASSWORD.

Dense vectors are a `knn_vector` field (an HNSW graph), sparse ones a `rank_features` field that `neural_sparse`
searches (OpenSearch 2.11 or newer with the neural-search plugin). Engine lucene compares by inner product from 2.13
on, faiss by cosine from 2.19 on.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from lemni.errors import StoreError, missing_extra
from lemni.stores.base import Metric, Schema
from lemni.stores.checks import terms
from lemni.stores.elastic_like import BULK_BYTES, ElasticLike
from lemni.stores.elastic_pages import KEEP_ALIVE
from lemni.types import SparseVector

_SPACES: dict[Metric, str] = {"cosine": "cosinesimil", "dot": "innerproduct", "l2": "l2"}
_METRICS: dict[str, Metric] = {name: metric for metric, name in _SPACES.items()}
_ENGINES = ("lucene", "faiss")


class OpenSearch(ElasticLike):
    scheme = "opensearch"
    own_options = ("engine",)
    index_settings: ClassVar[dict[str, Any]] = {"knn": True}
    vectors_by_fields: ClassVar[bool] = False  # a knn_vector refuses to be asked for by `fields`

    def _connect(self, url: str) -> Any:
        try:
            import opensearchpy
        except ImportError:
            raise missing_extra("opensearch-py", "opensearch", "OpenSearch as a vector store") from None
        if (engine := self.place.option("engine", "lucene")) not in _ENGINES:
            raise StoreError(f"{self.name}: engine={engine!r:.40} is none of {', '.join(_ENGINES)}")
        how: dict[str, Any] = {"ca_certs": self.place.option("ca_certs")} if self.place.option("ca_certs") else {}
        if login := self._login("OPENSEARCH_PASSWORD"):
            how["http_auth"] = login
        if url.startswith("https:"):
            how |= {"use_ssl": True, "verify_certs": True}
        return opensearchpy.OpenSearch([url], timeout=60, retry_on_timeout=True, max_retries=3, **how)

    def _failures(self) -> tuple[type[Exception], ...]:
        import opensearchpy

        return (opensearchpy.OpenSearchException,)

    def _mapping(self, schema: Schema, like: dict[str, Any]) -> dict[str, Any]:
        if schema.kind == "sparse":
            return {"type": "rank_features"}
        method = {"name": "hnsw", "engine": self.place.option("engine", "lucene"), **like.get("method", {})}
        method["space_type"] = _SPACES[schema.metric]
        return {"type": "knn_vector", "dimension": schema.dimensions, "method": method}

    def _schema_of(self, mapping: dict[str, Any]) -> Schema | None:
        if mapping.get("type") == "rank_features":
            return Schema(None, "dot", "sparse")
        if mapping.get("type") != "knn_vector" or "dimension" not in mapping:  # a trained model has it instead
            return None
        space = mapping.get("space_type") or mapping.get("method", {}).get("space_type", "l2")
        if space not in _METRICS:
            raise StoreError(f"{self.name}: compares by {space}, which Lemni does not")
        return Schema(mapping["dimension"], _METRICS[space])

    def _nearest(self, vector: Any, k: int) -> dict[str, Any]:
        if isinstance(vector, SparseVector):
            return {"query": {"neural_sparse": {self.vector_field: {"query_tokens": terms(vector)}}}}
        asked = {"vector": np.asarray(vector, np.float32).tolist(), "k": k}
        return {"query": {"knn": {self.vector_field: asked}}}

    def _open_pit(self) -> str:
        reply = self.client.create_pit(index=self.collection, params={"keep_alive": KEEP_ALIVE})
        return str(reply["pit_id"])

    def _close_pit(self, pit: str) -> None:
        self.client.delete_pit(body={"pit_id": [pit]})

    def _bulk(self, actions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        from opensearchpy import helpers

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
