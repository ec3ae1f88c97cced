"""Whether a new collection is what it should be: the same entries, the right vectors, an index that finds them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.migrate import judged as judgements
from lemni.migrate.checks import Verification, named
from lemni.migrate.connection import Connection
from lemni.migrate.difference import is_same
from lemni.migrate.embedder import Embedder
from lemni.migrate.ids import IdSet, differences
from lemni.migrate.judged import Judged
from lemni.migrate.neighbours import Neighbours, Search, ids_in, overlap, recall
from lemni.migrate.source import Side, is_missing
from lemni.stores import as_id
from lemni.stores.base import Id, Metric, Page, Schema

_PAGE = 1024
_SEED = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is looked at, and what is good enough.

    Attributes:
        sample: entries that are compared and embedded again.
        k: neighbours, and the depth of recall with judgements; 0 looks at no neighbours.
        queries: of the sample's entries, with how many neighbours are searched.
        min_cosine: of a stored vector and the one computed again. A store that keeps float32 has 1 but for rounding;
            one that quantises has less by design.
        min_recall: of the new index, against exact search.
    """

    sample: int = 200
    k: int = 10
    queries: int = 100
    min_cosine: float = 0.9999
    min_recall: float = 0.9


class Verifier:
    """Reads the old side once or, for its neighbours, twice, the new one once, and both again where ids differ.

    Args:
        left_out: whether an id of the old side was rejected, and so must not be there.
        old, new: queries' embedders; without `old` the old side's queries cannot be asked.
    """

    def __init__(
        self,
        source: Side,
        target: Connection,
        new: Embedder,
        limits: Limits,
        *,
        left_out: Callable[[Id], bool] = lambda name: False,
        judged: Judged | None = None,
        old: Embedder | None = None,
        metric: Metric = "cosine",
    ) -> None:
        self._source, self._target, self._new, self._limits = source, target, new, limits
        self._left_out, self._judged, self._old, self._metric = left_out, judged, old, metric
        self._result = Verification()

    def run(self) -> Verification:
        """Raises StoreError where a side cannot be read."""
        started = time.monotonic()
        sample, old_ids = self._look_through()
        stored = self._target.ask(lambda store: store.fetch(sample.ids))
        search = self._search(sample, stored)
        new_ids = IdSet()
        for page in self._target.pages(_PAGE, vectors=search is not None):
            new_ids.add(page.ids)
            if search is not None:
                search.add(page)
        self._compare_sets(old_ids, new_ids)
        self._compare_contents(sample, stored)
        self._compare_vectors(sample, stored)
        if search is not None:
            self._compare_neighbours(search.found(), stored)
        if self._judged is not None:
            self._compare_quality(self._judged)
        self._result.seconds = round(time.monotonic() - started, 3)
        return self._result

    def _look_through(self) -> tuple[Page, IdSet]:
        """A sample of the old side, with ids as the new one has them, and all its ids."""
        chosen: list[tuple[Id, str | None, dict[str, Any]]] = []
        ids, seen, dice = IdSet(), 0, random.Random(_SEED)
        for page in self._wanted(self._source.pages(_PAGE)):
            ids.add(page.ids)
            for entry in zip(page.ids, page.texts, page.metadata, strict=True):
                seen += 1
                if len(chosen) < self._limits.sample:
                    chosen.append(entry)
                elif (place := dice.randrange(seen)) < self._limits.sample:
                    chosen[place] = entry
        return Page(*map(list, zip(*chosen, strict=True))) if chosen else Page([], [], []), ids

    def _wanted(self, pages: Iterator[Page]) -> Iterator[Page]:
        """Entries that must be on the new side, under the ids that they have there."""
        store = self._target.store
        id_type, name = store.id_type, store.name
        for page in pages:
            places = [
                at
                for at, (one, text) in enumerate(zip(page.ids, page.texts, strict=True))
                if not (is_missing(text) or self._left_out(one))
            ]
            yield Page(
                [as_id(page.ids[at], id_type, name) for at in places],
                [page.texts[at] for at in places],
                [page.metadata[at] for at in places],
                None if page.vectors is None else np.asarray(page.vectors)[places],
            )

    def _compare_sets(self, old: IdSet, new: IdSet) -> None:
        count = self._target.ask(lambda store: store.count())
        self._result.add(
            "counts", len(old) == len(new) == count, f"{count} entries", f"{len(old)}", entries=count, expected=len(old)
        )
        if not old.unequal(new):
            self._result.add("ids", True, "the same on both sides", "the same", ids_missing=0, ids_extra=0)
            return
        found = differences(
            old,
            new,
            lambda: ids_in(self._wanted(self._source.pages(_PAGE))),
            lambda: ids_in(self._target.pages(_PAGE)),
        )
        said = [
            f"{len(ids)}{'' if found.complete else ' or more'} {what}: {named(ids)}"
            for ids, what in ((found.missing, "missing"), (found.extra, "too many"))
            if ids
        ]
        numbers = {"ids_missing": len(found.missing), "ids_extra": len(found.extra)}
        self._result.add("ids", False, "; ".join(said) or "they changed while they were read", "the same", **numbers)

    def _compare_contents(self, sample: Page, stored: Page) -> None:
        there = {name: (text, data) for name, text, data in zip(stored.ids, stored.texts, stored.metadata, strict=True)}
        unequal = []
        for name, text, data in zip(sample.ids, sample.texts, sample.metadata, strict=True):
            if name not in there:
                unequal.append(f"{name!r:.80} is not there")
            elif there[name][0] != text:
                unequal.append(f"text of {name!r:.80}")
            elif not is_same(there[name], text, data):
                fields = [key for key in {**data, **there[name][1]} if data.get(key) != there[name][1].get(key)]
                unequal.append(f"metadata {', '.join(map(repr, fields or data))} of {name!r:.80}".replace("\n", " "))
        found = f"{len(sample) - len(unequal)} of {len(sample)} the same"
        found += f"; not: {'; '.join(unequal[:5])}" if unequal else ""
        self._result.add("texts and metadata", not unequal, found, "all of the sample", contents_unequal=len(unequal))

    def _compare_vectors(self, sample: Page, stored: Page) -> None:
        texts = dict(zip(sample.ids, sample.texts, strict=True))
        again = self._new.embed([texts[name] or "" for name in stored.ids])
        there: Any = stored.vectors
        cosines = [cosine(one, there[at]) for at, one in enumerate(again)]
        least = min(cosines, default=1.0)
        worst = stored.ids[cosines.index(least)] if cosines else None
        passed = least >= self._limits.min_cosine
        found = f"{len(cosines)} embedded again; lowest cosine {least:.6f}" + ("" if passed else f", of {worst!r:.80}")
        wanted = f"at least {self._limits.min_cosine:g}"
        self._result.samples["cosines"] = cosines
        self._result.add("vectors", passed, found, wanted, cosine_min=least, cosine_mean=_mean(cosines, 1.0))

    def _search(self, sample: Page, stored: Page) -> Search | None:
        """For exact search of some stored entries; None where there is nothing to search."""
        schema = self._target.ask(lambda store: store.describe()).schema
        if not self._limits.k or schema is None or schema.kind != "dense" or len(stored) < 2:
            return None
        some = slice(0, self._limits.queries)
        self._metric = schema.metric
        return Search(stored.ids[some], np.asarray(stored.vectors)[some], schema.metric, self._limits.k)

    def _compare_neighbours(self, exact: Neighbours, stored: Page) -> None:
        k, some = self._limits.k, slice(0, self._limits.queries)
        ids, vectors = stored.ids[some], np.asarray(stored.vectors)[some]
        shares = self._target.ask(lambda store: recall(store, ids, vectors, self._metric, exact, k))
        found = _mean(shares, 1.0)
        self._result.samples["index recall"] = shares
        passed = found >= self._limits.min_recall
        said = f"{found:.4f} of the exact {k} nearest, {len(shares)} queries"
        self._result.add(
            "index of the new side", passed, said, f"at least {self._limits.min_recall:g}", index_recall=found
        )
        connection, schema = self._source.connection, self._old_schema()
        if connection is None or schema is None:
            return
        before = connection.ask(lambda store: store.fetch(self._as_old(ids)))
        kept = {as_id(name, *self._target_ids()): at for at, name in enumerate(before.ids)}
        if before.vectors is None or set(kept) != set(ids):
            return
        old_vectors: NDArray[Any] = np.asarray([before.vectors[kept[name]] for name in ids])
        search = Search(ids, old_vectors, schema.metric, k)
        for page in self._wanted(self._source.pages(_PAGE, vectors=True)):
            search.add(page)
        old = search.found()
        same, jaccards = overlap(old, exact)
        self._result.samples["overlap"] = same
        said = f"{_mean(same, 1.0):.4f} of the {k} nearest stayed; Jaccard {_mean(jaccards, 1.0):.4f}"
        self._result.add("neighbours, old and new", None, said, overlap=_mean(same, 1.0), jaccard=_mean(jaccards, 1.0))

    def _compare_quality(self, judged: Judged) -> None:
        k = self._limits.k or 10
        depth = max(10, k)
        sides: list[tuple[str, Connection, Embedder | None]] = [("new", self._target, self._new)]
        if self._source.connection is not None and self._old_schema() is not None:
            sides.insert(0, ("old", self._source.connection, self._old))
        for side, connection, embedder in sides:
            if embedder is None:
                said = "not measured: --old-model says what embeds its queries"
                self._result.add(f"judged queries, {side} side", None, said)
                continue
            vectors = embedder.embed(judged.queries, "query")
            answers = connection.ask(lambda store, vectors=vectors: store.search(vectors, depth))  # type: ignore[misc]
            ranking = [[str(name) for name in row] for row in answers]
            gain, share = judgements.ndcg(ranking, judged.relevance), judgements.recall(ranking, judged.relevance, k)
            said = f"nDCG@10 {gain:.4f}, recall@{k} {share:.4f}, {len(ranking)} queries"
            self._result.add(f"judged queries, {side} side", None, said)
            self._result.numbers.update({f"ndcg_{side}": gain, f"recall_{side}": share})

    def _old_schema(self) -> Schema | None:
        """Of the old side, where it has dense vectors."""
        connection = self._source.connection
        if connection is None:
            return None
        schema = connection.ask(lambda store: store.describe()).schema
        return schema if schema is not None and schema.kind == "dense" else None

    def _target_ids(self) -> tuple[str, str]:
        return self._target.store.id_type, self._target.store.name

    def _as_old(self, ids: list[Id]) -> list[Id]:
        connection = self._source.connection
        assert connection is not None
        return [as_id(name, connection.store.id_type, connection.name) for name in ids]


def cosine(one: Any, two: Any) -> float:
    """Of two dense vectors, two sparse ones, or the lowest of two multi-vectors' rows. Two without length are alike."""
    if isinstance(one, np.ndarray) and one.ndim == 2:
        if one.shape != np.shape(two):
            return 0.0
        return min((cosine(a, b) for a, b in zip(one, two, strict=True)), default=1.0)
    if not isinstance(one, np.ndarray):
        terms = sorted({*one.indices.tolist(), *two.indices.tolist()})
        places = {term: at for at, term in enumerate(terms)}
        dense = np.zeros((2, len(terms)))
        for row, sparse in enumerate((one, two)):
            dense[row, [places[term] for term in sparse.indices.tolist()]] = sparse.values
        one, two = dense
    first, second = np.asarray(one, np.float64), np.asarray(two, np.float64)
    if first.shape != second.shape:
        return 0.0
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / lengths if lengths else float(not first.any() and not second.any())


def _mean(values: list[float], without: float) -> float:
    return float(np.mean(values)) if values else without
