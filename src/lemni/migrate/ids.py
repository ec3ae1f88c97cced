"""Whether two sides have the same ids, in bounded memory: hashes of sets that do not depend on any order, and names
only where they differ."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from lemni.stores.base import Id

BUCKETS = 4096
_NAMED = 1_000_000  # ids that are compared one by one, at most


class IdSet:
    """Sums of 64-bit hashes in buckets by hash; 64 KiB however many ids there are."""

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(BUCKETS, np.int64)
        self._sums: NDArray[np.uint64] = np.zeros(BUCKETS, np.uint64)

    def add(self, ids: Iterable[Id]) -> None:
        hashes = np.fromiter((hash_of(name) for name in ids), np.uint64)
        buckets = (hashes % np.uint64(BUCKETS)).astype(np.int64)
        np.add.at(self.counts, buckets, 1)
        np.add.at(self._sums, buckets, hashes)

    def __len__(self) -> int:
        return int(self.counts.sum())

    def unequal(self, other: IdSet) -> list[int]:
        """Buckets whose ids differ."""
        found: list[int] = np.flatnonzero((self._sums != other._sums) | (self.counts != other.counts)).tolist()
        return found


def hash_of(name: Id) -> int:
    """Of 64 bits. A number and its digits are two ids."""
    content = f"{'n' if isinstance(name, int) else 's'}{name}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


@dataclass(frozen=True, slots=True)
class Differences:
    """Ids that only one side has, or that it has more often.

    Attributes:
        complete: whether all of them are here; with more than a million ids in the buckets that differ they are not.
    """

    missing: list[Id]
    extra: list[Id]
    complete: bool


def differences(
    old: IdSet, new: IdSet, old_ids: Callable[[], Iterator[Id]], new_ids: Callable[[], Iterator[Id]]
) -> Differences:
    """Name what differs; reads both sides once more."""
    wanted: set[int] = set()
    held = 0
    unequal = old.unequal(new)
    for bucket in unequal:
        held += int(old.counts[bucket] + new.counts[bucket])
        if wanted and held > _NAMED:
            break
        wanted.add(bucket)
    counts: dict[Id, int] = {}
    first: dict[Id, None] = {}
    for name, step in chain(((name, -1) for name in old_ids()), ((name, 1) for name in new_ids())):
        if hash_of(name) % BUCKETS in wanted:
            counts[name] = counts.get(name, 0) + step
            first.setdefault(name)
    missing = [name for name in first if counts[name] < 0]
    extra = [name for name in first if counts[name] > 0]
    return Differences(missing, extra, len(wanted) == len(unequal))
