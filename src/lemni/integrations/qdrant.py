"""Qdrant: points and queries with the dense, sparse and multi-vectors of Lemni's models, as qdrant-client takes them.

It makes and sends nothing on Qdrant's side: what comes back goes into `create_collection`, `upsert` and `query_points`.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import Any, Literal, TypeAlias
from uuid import uuid4

import lemni
from lemni.client.identity import Identities
from lemni.errors import InvalidRequest, missing_extra
from lemni.integrations.clients import Clients
from lemni.types import InputType, Item

try:
    from qdrant_client import models
except ModuleNotFoundError as error:
    raise missing_extra("qdrant-client", "qdrant", "lemni.integrations.qdrant") from error

Kind: TypeAlias = Literal["dense", "sparse", "multi_vector"]

_DISTANCES = {
    "cosine": models.Distance.COSINE,
    "dot": models.Distance.DOT,
    "euclidean": models.Distance.EUCLID,
    "manhattan": models.Distance.MANHATTAN,
}


class LemniVectors:
    """Named vectors "dense", "sparse" and "multi_vector" for the points of a collection.

    Example:
        >>> vectors = LemniVectors("BAAI/bge-m3", sparse=True, multi_vector=True)
        >>> qdrant.create_collection("docs", **vectors.collection())
        >>> qdrant.upsert("docs", vectors.points(["Cats sleep on sofas.", "A dog runs."]))
        >>> qdrant.query_points("docs", vectors.query("Where do cats sleep?", "sparse"), using="sparse")
    """

    def __init__(
        self,
        model: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        client: lemni.Client | None = None,
        *,
        dense: bool | str = True,
        sparse: bool | str = False,
        multi_vector: bool | str = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            model, base_url, api_key, client: as in `Clients`.
            dense, sparse, multi_vector: which vectors a point has; the name of a model, or True for `model`.
            options: more keywords for dense vectors, as `lemni.Client.embed` takes them.

        Raises:
            InvalidRequest: no kind of vector is wanted.
        """
        wanted: dict[Kind, bool | str] = {"dense": dense, "sparse": sparse, "multi_vector": multi_vector}
        self._models = {kind: choice if isinstance(choice, str) else model for kind, choice in wanted.items() if choice}
        if not self._models:
            raise InvalidRequest("points have no vectors; one of dense, sparse and multi_vector must be wanted")
        self._client = Clients(None, base_url, api_key, client).client
        self._options = dict(options or {})

    def collection(self) -> dict[str, Any]:
        """`vectors_config` and `sparse_vectors_config` for `create_collection`.

        Sizes are those of the models' vectors. Dense vectors are compared by the model's own similarity, cosine if the
        server does not say; multi-vectors by MaxSim of dot products; sparse vectors, in Qdrant, by their dot product.
        """
        found: dict[str, Any] = {"vectors_config": {}, "sparse_vectors_config": {}}
        for kind, model in self._models.items():
            if kind == "sparse":
                found["sparse_vectors_config"][kind] = models.SparseVectorParams()
            elif kind == "dense":
                found["vectors_config"][kind] = models.VectorParams(
                    size=len(self._rows(kind, ["size"], "document")[0]), distance=self._distance(model)
                )
            else:
                found["vectors_config"][kind] = models.VectorParams(
                    size=len(self._rows(kind, ["size"], "document")[0][0]),
                    distance=models.Distance.DOT,
                    multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
                )
        return found

    def points(
        self,
        documents: Seq[Item],
        payloads: Seq[Mapping[str, Any]] | None = None,
        ids: Seq[int | str] | None = None,
    ) -> list[models.PointStruct]:
        """A point for each document. A text is in its payload as `text`.

        Args:
            documents: texts, or images where the models take them.
            payloads: more for each payload.
            ids: whole numbers or UUIDs; random UUIDs if not given.

        Raises:
            InvalidRequest: there are not as many payloads or ids as documents.
            ClientError: the server could not be asked.
        """
        for name, given in {"payloads": payloads, "ids": ids}.items():
            if given is not None and len(given) != len(documents):
                raise InvalidRequest(
                    f"{len(given)} {name} for {len(documents)} documents; give one for each", param=name
                )
        columns = {kind: self._rows(kind, documents, "document") for kind in self._models}
        return [
            models.PointStruct(
                id=ids[place] if ids is not None else str(uuid4()),
                vector={kind: rows[place] for kind, rows in columns.items()},
                payload={
                    **({"text": document} if isinstance(document, str) else {}),
                    **(payloads[place] if payloads is not None else {}),
                },
            )
            for place, document in enumerate(documents)
        ]

    def query(self, item: Item, using: Kind = "dense") -> Any:
        """The vector of a query, for `query_points(query=..., using=using)`.

        Raises:
            InvalidRequest: points have no such vector.
            ClientError: the server could not be asked.
        """
        if using not in self._models:
            raise InvalidRequest(f"using is {using!r}; points have {', '.join(self._models)}", param="using")
        return self._rows(using, [item], "query")[0]

    def _rows(self, kind: Kind, items: Seq[Item], side: InputType) -> list[Any]:
        """Vectors as qdrant-client's models take them."""
        model = self._models[kind]
        if kind == "dense":
            how: dict[str, Any] = {"input_type": side, "model": model, **self._options}
            dense: list[Any] = self._client.embed(items, **how).tolist()
            return dense
        if kind == "sparse":
            return [
                models.SparseVector(indices=indices.tolist(), values=values.tolist())
                for indices, values in self._client.sparse(items, input_type=side, model=model)
            ]
        return [rows.tolist() for rows in self._client.multi_vector(items, input_type=side, model=model)]

    def _distance(self, name: str | None) -> models.Distance:
        known = Identities()
        known.update(self._client.models())
        model = known.of(name or self._client.model)
        return _DISTANCES.get(model.similarity if model else "cosine", models.Distance.COSINE)
