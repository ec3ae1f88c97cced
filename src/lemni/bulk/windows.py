"""Vectors of many items at once, the same to the bit every time: a window of rows is tokenised whole, cut into packed
batches by the engine's own scheduler, and computed apart from every other window.

The engine itself lets requests share forward passes as they come, so that the last bit of a vector depends on its
neighbours; a resumed job must not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from collections.abc import Sequence as Seq
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from lemni.config import EngineSettings
from lemni.engine import failures
from lemni.engine.replica import BENIGN, is_out_of_memory
from lemni.engine.scheduler import NO_LIMIT, Scheduler, Work
from lemni.engine.tokenizing import CHUNK_ITEMS, tokenize
from lemni.errors import InternalError, LemniError
from lemni.runtimes.base import Runtime
from lemni.tasks.model import LoadedModel
from lemni.types import Item, Outputs, PackedBatch, Request, Result, Row, Sequence


@dataclass(frozen=True, slots=True)
class Window:
    """Tokenised items of one request.

    Attributes:
        request: with the items.
        sequences: of each item, or why it has none.
    """

    request: Request
    sequences: list[list[Sequence] | LemniError]


@dataclass(frozen=True, slots=True)
class Computed:
    """A computed window.

    Attributes:
        result: of the items that could be computed, in their order.
        places: which items those are, from 0.
        errors: why the others could not, by place.
    """

    result: Result
    places: list[int]
    errors: dict[int, LemniError]


class Computer:
    """A loaded model's replicas without an engine. `tokenize` and `compute` are thread-safe; `compute` runs as many
    windows side by side as there are replicas.

    Raises:
        LemniError: what opening a replica raises.
    """

    def __init__(self, model: LoadedModel, settings: EngineSettings) -> None:
        self.model = model
        limits = model.backend.limits
        self._runtimes = [model.new_runtime(index) for index in range(settings.replicas or limits.replicas)]
        self._free = list(self._runtimes)
        self._turn = threading.Condition()
        self._budget = settings.max_batch_tokens or limits.batch_tokens
        self._threads = ThreadPoolExecutor(settings.tokenizer_threads, thread_name_prefix="lemni-tokenizer")

    @property
    def replicas(self) -> int:
        return len(self._runtimes)

    def tokenize(self, items: Seq[Item], request: Request) -> Window:
        """The sequences of `items`, asked for as `request` says; an item's error takes its place."""
        own = replace(request, items=items)
        starts = range(0, len(items), CHUNK_ITEMS)
        chunks = self._threads.map(lambda start: self._chunk(own, start), starts)
        return Window(own, [outcome for chunk in chunks for outcome in chunk])

    def compute(self, window: Window, passed: Callable[[int, int], None] = lambda sequences, tokens: None) -> Computed:
        """The window's vectors.

        Args:
            passed: told after each forward pass how many sequences and tokens were in it.

        Raises:
            InternalError: a replica does not compute anything any more.
        """
        good = [at for at, outcome in enumerate(window.sequences) if not isinstance(outcome, LemniError)]
        errors = {at: error for at, error in enumerate(window.sequences) if isinstance(error, LemniError)}
        rows = self._rows([(at, window.sequences[at]) for at in good], errors, passed)  # type: ignore[misc]
        places = [at for at in good if at not in errors]
        request = replace(window.request, items=[window.request.items[at] for at in places])
        done = [rows[at] for at in places]
        return Computed(self.model.finish(done, request) if done else Result.of(done), places, errors)

    def close(self) -> None:
        """Free the device; the model stays loaded. Idempotent."""
        self._threads.shutdown(cancel_futures=True)
        for runtime in self._runtimes:
            runtime.close()

    def _chunk(self, request: Request, start: int) -> list[list[Sequence] | LemniError]:
        """Where the tokenizer stops at an item that it cannot take, those behind it are still wanted."""
        outcomes: list[list[Sequence] | LemniError] = []
        stop = min(len(request.items), start + CHUNK_ITEMS)
        while (at := start + len(outcomes)) < stop:
            outcomes += tokenize(self.model, request, at, stop)
        return outcomes

    def _rows(
        self,
        items: list[tuple[int, list[Sequence]]],
        errors: dict[int, LemniError],
        passed: Callable[[int, int], None],
    ) -> dict[int, list[Row]]:
        """The rows of each item's sequences; an item that fails is put into `errors`."""
        scheduler = Scheduler(NO_LIMIT, 1)
        flow = scheduler.admit(0, "bulk")
        found: dict[int, list[Outputs]] = {at: [{} for _ in sequences] for at, sequences in items}
        scheduler.add(
            flow,
            [
                ((at, part), sequence, sequence.key)
                for at, sequences in items
                for part, sequence in enumerate(sequences)
                if sequence.outputs  # what needs no pass gets none
            ],
            0,
        )
        runtime = self._take()
        try:
            while works := scheduler.take(self._budget):
                for work, row in self._run(runtime, works):
                    for _, (at, part) in scheduler.complete(work):
                        if isinstance(row, LemniError):
                            errors[at] = row
                        else:
                            found[at][part] = row
                passed(len(works), sum(work.tokens for work in works))
        finally:
            self._give(runtime)
        return {
            at: [Row(_bare(one), row) for one, row in zip(sequences, found[at], strict=True)]
            for at, sequences in items
            if at not in errors
        }

    def _run(self, runtime: Runtime, works: list[Work]) -> list[tuple[Work, Outputs | LemniError]]:
        """A pass, or, where it fails, passes of halves down to the guilty sequence."""
        try:
            rows = runtime.run(PackedBatch.pack([work.sequence for work in works]))
        except Exception as cause:
            if len(works) > 1:
                return self._halves(runtime, works)
            if not is_out_of_memory(cause):
                self._probe(runtime, cause)
            kind = type(cause).__name__
            return [(works[0], InternalError(f"the model failed on its {works[0].tokens} tokens: {kind}: {cause}"))]
        if all(map(failures.is_finite, rows)):
            return list(zip(works, rows, strict=True))
        if len(works) > 1:  # the NaN of one may have spread to the others
            return self._halves(runtime, works)
        return [(works[0], failures.invalid_output(None))]

    def _halves(self, runtime: Runtime, works: list[Work]) -> list[tuple[Work, Outputs | LemniError]]:
        half = len(works) // 2
        return self._run(runtime, works[:half]) + self._run(runtime, works[half:])

    def _probe(self, runtime: Runtime, cause: Exception) -> None:
        """Tell a bad sequence from a broken replica, which would reject every row that is left."""
        try:
            runtime.run(PackedBatch.pack([BENIGN]))
        except Exception:
            raise InternalError(f"the model computes nothing any more: {type(cause).__name__}: {cause}") from cause

    def _take(self) -> Runtime:
        with self._turn:
            self._turn.wait_for(lambda: bool(self._free))
            return self._free.pop()

    def _give(self, runtime: Runtime) -> None:
        with self._turn:
            self._free.append(runtime)
            self._turn.notify()


def _bare(sequence: Sequence) -> Sequence:
    """Without the pixels, as `Model.finish` takes it."""
    return sequence if sequence.features is None else replace(sequence, features=None)
