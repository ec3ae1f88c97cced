"""What happens to one shard: read, tokenise, compute, write. The four steps run in threads of one process
(`lemni.bulk.run`) or one after the other in an actor of a cluster (`lemni.distributed`); both give the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.bulk.manifest import Manifest, Record, Reject
from lemni.bulk.outputs.base import Output
from lemni.bulk.plan import Plan
from lemni.bulk.rows import Broken, Rows, Vectors
from lemni.bulk.sources.base import Shard
from lemni.bulk.windows import Computed, Computer, Window
from lemni.errors import InvalidRequest
from lemni.tasks.output_types import convert
from lemni.tasks.tokenizer import is_unicode
from lemni.types import Image, Result

_SHOWN = 200
"""Characters of a rejected text that are kept."""


@dataclass(slots=True)
class Work:
    """A shard on its way through the steps.

    Attributes:
        rows: all of its input's rows.
        good: places of those that are embedded.
        window, computed: of the good ones.
        passed: sequences that went through the model.
    """

    index: int
    rows: Rows
    good: list[int]
    digest: str
    rejects: list[Reject] = field(default_factory=list)
    window: Window | None = None
    computed: Computed | None = None
    passed: int = 0


class Worker:
    """The steps of one job in this process.

    Args:
        computer: None where only `read` and `write` are called.
        ranges: float32 [2, dimensions], for int8 and uint8.
        passed: told after each forward pass how many rows and tokens it had.
    """

    def __init__(
        self,
        plan: Plan,
        computer: Computer | None,
        output: Output,
        manifest: Manifest,
        ranges: NDArray[np.float32] | None = None,
        passed: Callable[[int, int], None] = lambda rows, tokens: None,
    ) -> None:
        self._plan, self._computer, self._output, self._manifest = plan, computer, output, manifest
        self._ranges, self._passed = ranges, passed

    def read(self, shard: Shard) -> Work:
        """Load the rows and put aside what cannot be embedded. Raises InvalidRequest with `fail_fast`."""
        rows = shard.load()
        work = Work(shard.index, rows, [], digest_of(rows))
        for place, item in enumerate(rows.items):
            reason = self._fault(item)
            if reason is None:
                work.good.append(place)
            else:
                self._reject(work, place, reason)
        if shard.index == 0 and rows.items and all(isinstance(item, Broken) for item in rows.items):
            reasons = {item.reason for item in rows.items if isinstance(item, Broken)}
            if len(reasons) == 1:  # a wrong name, not bad rows
                raise InvalidRequest(f"each of the first {len(rows)} rows {reasons.pop()} (--text names the texts)")
        return work

    def tokenize(self, work: Work) -> Work:
        assert self._computer is not None
        items: list[Any] = [work.rows.items[place] for place in work.good]
        work.window = self._computer.tokenize(items, self._plan.request)
        return work

    def compute(self, work: Work) -> Work:
        assert self._computer is not None
        assert work.window is not None

        def passed(sequences: int, tokens: int) -> None:
            work.passed += sequences
            self._passed(sequences, tokens)

        work.computed = self._computer.compute(work.window, passed)
        work.window = None  # megabytes of pixels
        return work

    def write(self, work: Work) -> Record:
        """Hand the vectors to the output, and record that the shard is done. Raises InvalidRequest with `fail_fast`."""
        kept, vectors = self.vectors(work)
        self._output.write(self._manifest.draft(work.index), kept, vectors, self._plan.made)
        assert work.computed is not None
        result = work.computed.result
        record = Record(
            work.index,
            work.rows.first,
            len(work.rows),
            len(kept),
            int(result.token_counts.sum()),
            len(result.truncated),
            work.digest,
            work.rejects,
        )
        self._manifest.keep(record)
        return record

    def vectors(self, work: Work) -> tuple[Rows, Vectors]:
        """The rows that have vectors, and those as they are written. The others are among the work's rejects then."""
        assert work.computed is not None
        for at, error in work.computed.errors.items():
            self._reject(work, work.good[at], error.message.replace(f"text[{at}]", "the text"))
        rows = work.rows.take(work.good[at] for at in work.computed.places)
        rows, vectors = self._converted(work, work.computed.result, rows)
        work.rejects.sort(key=lambda one: one.row)
        return rows, vectors

    def _converted(self, work: Work, result: Result, rows: Rows) -> tuple[Rows, Vectors]:
        """A value too large for half precision rejects its row."""
        task = self._plan.request.tasks[0]
        if task == "sparse":
            return rows, result.sparse
        if task == "multi_vector":
            return rows, result.multi_vectors
        dense = result.vectors if len(rows) else np.zeros((0, self._plan.made.dimensions or 0), np.float32)
        try:
            return rows, convert(dense, self._plan.output_type, self._ranges)
        except InvalidRequest:
            fits: list[int] = []
            pieces: list[NDArray[Any]] = []
            for at in range(len(rows)):
                try:
                    pieces.append(convert(dense[at : at + 1], self._plan.output_type, self._ranges))
                    fits.append(at)
                except InvalidRequest as error:
                    assert work.computed is not None
                    self._reject(work, work.good[work.computed.places[at]], error.message)
            empty = convert(dense[:0], self._plan.output_type, self._ranges)
            return rows.take(fits), np.concatenate([empty, *pieces])

    def _fault(self, item: Any) -> str | None:
        """Why an item cannot even be tried."""
        if item is None:
            return "is null"
        if isinstance(item, Broken):
            return item.reason
        if isinstance(item, str):
            if not item.strip() and self._plan.rules.empty == "reject":
                return "is empty"
            if not is_unicode(item):
                return "holds a lone surrogate, which is no character"
        return None

    def _reject(self, work: Work, place: int, reason: str) -> None:
        text = work.rows.texts[place]
        row = work.rows.first + place
        reject = Reject(row, work.rows.ids[place], reason, None if text is None else printable(text))
        if self._plan.rules.fail_fast:
            raise reject.error()
        work.rejects.append(reject)


def printable(text: str) -> str:
    """Its beginning, of characters that can be written as UTF-8."""
    return text[:_SHOWN].encode("utf-8", "backslashreplace").decode()


def digest_of(rows: Rows) -> str:
    """Stands for the rows' ids and items."""
    digest = hashlib.blake2b(digest_size=16)
    for name, item in zip(rows.ids, rows.items, strict=True):
        content = item.data if isinstance(item, Image) else repr(item).encode("utf-8", "surrogatepass")
        digest.update(repr(name).encode("utf-8", "surrogatepass") + b"\0" + content + b"\1")
    return digest.hexdigest()
