"""FAISS indexes that Lemni did not write: LangChain's folders, and bare indexes with a docstore in parquet or JSON
lines."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import faiss as library
import numpy as np

from lemni.errors import StoreError, missing_extra
from lemni.stores.base import Id, Page, Schema
from lemni.stores.place import Place

_TEXTS = ("text", "document", "content", "body", "page_content")


# What a pickle may make beside documents: values of metadata.
_HARMLESS = (
    ("builtins", "set"),
    ("datetime", "date"),
    ("datetime", "datetime"),
    ("datetime", "timedelta"),
    ("datetime", "timezone"),
    ("uuid", "UUID"),
)


class Row(NamedTuple):
    id: Id | None
    text: str | None
    metadata: dict[str, Any]


def found_files(index: Path, place: Place, name: str) -> Files:
    """What belongs to the file `index`.

    Raises:
        StoreError: a pickle stands beside it that nobody said to trust, or a docstore of no known form.
    """
    pickled = index.with_suffix(".pkl")
    docstore = place.option("docstore")
    if docstore and Path(docstore).suffix not in (".parquet", ".jsonl"):
        raise StoreError(f"{name}: docstore={docstore} is neither .parquet nor .jsonl")
    if not docstore and pickled.is_file() and place.option("trust-pickle") != "1":
        raise StoreError(
            f"{name}: {pickled} is a pickle, which can hold code; say &trust-pickle=1 if you made it or trust who did"
        )
    return Files(
        index,
        Path(docstore) if docstore else None,
        None if docstore or not pickled.is_file() else pickled,
        place.option("id"),
        place.option("text"),
        name,
    )


@dataclass(frozen=True)
class Files:
    """An index and where its documents are."""

    path: Path
    docstore: Path | None
    pickled: Path | None
    id: str
    text: str
    name: str

    @property
    def kind(self) -> str:
        return "LangChain's folder" if self.pickled else "a bare index"

    @cached_property
    def index(self) -> Any:
        found = library.read_index(str(self.path))
        ivf = library.try_extract_index_ivf(found)
        if ivf is not None:
            ivf.make_direct_map()  # position -> where it lies in the cells
            ivf.nprobe = min(ivf.nlist, 16)
        return found

    @cached_property
    def labels(self) -> Any:
        """int64 [vectors] numbers that an IndexIDMap gives to its vectors; None if those are their positions."""
        return library.vector_to_array(self.index.id_map) if hasattr(self.index, "id_map") else None

    @property
    def count(self) -> int:
        return int(self.index.ntotal)

    @property
    def schema(self) -> Schema:
        metrics = {library.METRIC_INNER_PRODUCT: "dot", library.METRIC_L2: "l2"}
        if self.index.metric_type not in metrics:
            raise StoreError(f"{self.name}: the index compares neither by inner product nor by l2")
        return Schema(int(self.index.d), metrics[self.index.metric_type])  # type: ignore[arg-type]

    @property
    def notes(self) -> tuple[str, ...]:
        inner = library.downcast_index(self.index.index) if self.labels is not None else self.index
        notes = [f"{self.kind}, {type(self.index).__name__}; only read"]
        if not isinstance(inner, (library.IndexFlat, library.IndexHNSWFlat, library.IndexIVFFlat)):
            notes.append("its vectors come back as it has compressed them")
        return tuple(notes)

    def rows(self) -> Iterator[tuple[int, Id, str | None, dict[str, Any]]]:
        """Position in the index, id, text and metadata of each entry."""
        labels = None if self.labels is None else self.labels.tolist()
        places = {label: at for at, label in enumerate(labels or ())}
        seen = 0
        for at, (name, text, metadata) in enumerate(self._documents()):
            seen += 1
            if seen > self.count:
                break
            if labels is None or self.pickled:
                yield at, at if name is None else name, text, metadata
            elif name is None:
                yield at, labels[at], text, metadata
            elif name in places:
                yield places[name], name, text, metadata
            else:
                raise StoreError(f"{self.name}: the index has no vector with the number {name!r:.100}")
        if seen != self.count:
            rows = f"more than {self.count}" if seen > self.count else seen
            raise StoreError(f"{self.name}: {rows} rows of documents for {self.count} vectors")

    def _documents(self) -> Iterator[Row]:
        if self.pickled:
            yield from _langchain(self.pickled, self.count, self.name)
        elif self.docstore is None:
            numbers = range(self.count) if self.labels is None else map(int, self.labels)
            yield from (Row(number, None, {}) for number in numbers)
        else:
            rows = _parquet(self.docstore) if self.docstore.suffix == ".parquet" else _lines(self.docstore)
            for at, cells in enumerate(rows):
                for chosen in filter(None, (self.id, self.text)):
                    if at == 0 and chosen not in cells:
                        raise StoreError(f"{self.docstore}: has no {chosen!r}; it has {', '.join(cells)}")
                if cells.get(self.id or "id", None if self.id else 0) is None:
                    raise StoreError(f"{self.docstore}: row {at} has no id")
                text = self.text or next((one for one in _TEXTS if one in cells), "")
                found = Row(cells.pop(self.id or "id", None), cells.pop(text, None), cells)
                if not isinstance(found.text, (str, type(None))):
                    raise StoreError(f"{self.docstore}: {text!r} of row {at} is no text: {found.text!r:.100}")
                yield found

    def pages(self, size: int, *, vectors: bool, after: Id | None) -> Iterator[Page]:
        rows = self.rows()
        if after is not None:
            for _, name, _, _ in rows:
                if name == after:
                    break
            else:
                raise StoreError(f"{self.name}: has no id {after!r:.100} to go on after")
        while part := list(islice(rows, size)):
            yield self._page(part, vectors)

    def fetch(self, ids: Seq[Id], vectors: bool) -> Page:
        """One pass over all documents."""
        wanted = set(ids)
        found = {row[1]: row for row in self.rows() if row[1] in wanted}
        return self._page([found[one] for one in ids if one in found], vectors)

    def _page(self, rows: Seq[tuple[int, Id, str | None, dict[str, Any]]], vectors: bool) -> Page:
        found = None
        if vectors:
            inner = self.index.index if self.labels is not None else self.index
            places = np.array([row[0] for row in rows], np.int64)
            found = inner.reconstruct_batch(places) if len(rows) else np.zeros((0, self.index.d), np.float32)
        return Page([row[1] for row in rows], [row[2] for row in rows], [row[3] for row in rows], found)

    def search(self, queries: Any, k: int) -> list[list[Id]]:
        inner = self.index.index if self.labels is not None else self.index
        places = inner.search(queries, k)[1]
        wanted = set(places.ravel().tolist())
        names = {row[0]: row[1] for row in self.rows() if row[0] in wanted}
        return [[names[at] for at in row if at >= 0] for row in places.tolist()]


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise missing_extra("pyarrow", "parquet", str(path)) from None
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(1024):
            yield from batch.to_pylist()


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                found = json.loads(line)
            except ValueError as error:
                raise StoreError(f"{path}:{number}: is no JSON: {error}") from None
            if not isinstance(found, dict):
                raise StoreError(f"{path}:{number}: is no JSON object")
            yield found


class _Kept:
    """Instead of LangChain's classes: keeps what their pickles say of an object."""

    state: dict[str, Any]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state.get("__dict__", state)


class _Document(_Kept):
    pass


class _Docstore(_Kept):
    pass


class _Restricted(pickle.Unpickler):
    """Makes documents and docstores, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] in ("langchain", "langchain_core", "langchain_community", "langchain_classic"):
            if name == "Document":
                return _Document
            if name == "InMemoryDocstore":
                return _Docstore
        if (module, name) in _HARMLESS:
            return super().find_class(module, name)
        raise StoreError(f"the pickle wants to make a {module}.{name}, which is none of LangChain's documents")


def _langchain(path: Path, count: int, name: str) -> Iterator[Row]:
    """The documents in the order of the index. Reads the pickle as a whole, as LangChain does."""
    with open(path, "rb") as file:
        try:
            store, names = _Restricted(file).load()
            documents = store.state["_dict"]
        except StoreError as error:
            raise StoreError(f"{name}: {path}: {error.message}") from None
        except Exception as error:  # a broken pickle raises about everything
            raise StoreError(f"{name}: {path} is no docstore of LangChain: {type(error).__name__}: {error}") from None
    for at in range(count):
        try:
            document = documents[names[at]].state
        except KeyError:
            raise StoreError(f"{name}: {path} has no document for vector {at}") from None
        yield Row(names[at], document["page_content"], document.get("metadata") or {})
