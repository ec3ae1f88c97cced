"""A model whose vectors can be checked by hand, and whose runtime fails on demand. No clock, no sleep.

A text is numbers: "3 1 4" has the token ids 3, 1, 4. Its row is [count, sum, sum of id * position, sum of squares],
exact in float32, and finishing adds 0.5 unless `normalize` is False, and cuts to `dimensions`.

"3 1 | 4" becomes two sequences, whose rows are added up; "~4" is a sequence that asks for no output: its ids are
counted, its row is zeros. The task "tokens" gives each token's id and its square.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from lemni.config import EngineSettings
from lemni.engine import Engine
from lemni.errors import InvalidRequest, LemniError
from lemni.runtimes.base import Limits
from lemni.types import Item, ModelCard, Options, Output, Outputs, PackedBatch, Request, Result, Row, Sequence, Task

DIM = 4
PATIENCE_S = 60.0
"""Longest wait for what must happen; only a failing test waits that long."""


def parts_of(item: Item) -> list[tuple[list[int], bool]]:
    """The ids of each of an item's sequences, and whether it is computed."""
    if not isinstance(item, str):
        return [(list(item), True)]  # type: ignore[arg-type]
    parts = [part.strip() for part in item.split("|")]
    return [([int(word) for word in part.lstrip("~").split()], not part.startswith("~")) for part in parts]


def row_of(ids: Seq[int]) -> NDArray[np.float32]:
    sums = [len(ids), sum(ids), sum(i * position for position, i in enumerate(ids)), sum(i * i for i in ids)]
    return np.array(sums, np.float32)


def expected(item: Item, options: Options = Options()) -> list[float]:  # noqa: B008
    rows = [row_of(ids) for ids, computed in parts_of(item) if computed]
    row = np.sum(rows, axis=0) if rows else np.zeros(DIM, np.float32)
    return [float(value) + (0.0 if options.normalize is False else 0.5) for value in row][: options.dimensions]


def check(result: Result, items: Seq[Item], options: Options = Options()) -> None:  # noqa: B008
    assert result.vectors.dtype == np.float32
    np.testing.assert_array_equal(result.vectors, np.array([expected(item, options) for item in items], np.float32))
    np.testing.assert_array_equal(result.token_counts, [sum(len(ids) for ids, _ in parts_of(i)) for i in items])


class Gate:
    """Holds forward passes until it is opened."""

    def __init__(self) -> None:
        self._entered = threading.Semaphore(0)
        self._open = threading.Event()

    def pass_through(self) -> None:
        self._entered.release()
        assert self._open.wait(PATIENCE_S)

    def wait_entered(self) -> None:
        assert self._entered.acquire(timeout=PATIENCE_S)

    def open(self) -> None:
        self._open.set()


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


class ToyModel:
    """Faults are sets of token ids that set them off, and may be changed at any time.

    Attributes:
        raises, dies, nans: ids whose batch raises, ends the replica's thread, or whose row is NaN.
        dies_once: like `dies`, but only the first time.
        shapes: ids whose batch gives a row too few.
        memory: tokens over which a batch is out of memory.
        gates: id to the gate that a batch with this id waits at.
        loads: what `new_runtime` calls before it loads; may raise.
        batches: lengths of every batch that was run, in order.
        wanted: outputs that each of them was asked for.
        computed: ids of every sequence that was in a batch that succeeded.
    """

    def __init__(
        self,
        *,
        budget: int = 16,
        replicas: int = 1,
        device: str = "cpu",
        name: str = "toy",
        efficient_tokens: int | None = None,
        express: bool = False,
    ) -> None:
        self.card = ModelCard(
            name=name,
            model_id=name,
            revision=None,
            source="test",
            architecture="toy",
            tasks=("embed", "tokens"),
            modalities=("text",),
            labels=(),
            dimensions=DIM,
            max_length=512,
            vocabulary=1000,
            matryoshka_dimensions=(),
            prompts={},
            default_prompt_name=None,
            similarity="dot",
            normalized=False,
            runtime="toy",
            device=device,
            dtype="f32",
            parameters=0,
        )
        self.limits = Limits(budget, replicas, efficient_tokens, express)
        self.device = device
        self.raises: set[int] = set()
        self.dies: set[int] = set()
        self.nans: set[int] = set()
        self.shapes: set[int] = set()
        self.dies_once: set[int] = set()
        self.memory: int | None = None
        self.memory_error: type[Exception] = MemoryError
        self.gates: dict[int, Gate] = {}
        self.loads: Callable[[int], None] = lambda replica: None
        self.tokenizes: Callable[[Seq[Item], int], None] = lambda items, offset: None
        self.estimate: Callable[[Item], int] = lambda item: max(1, len(item.split() if isinstance(item, str) else item))
        self.batches: list[list[int]] = []
        self.wanted: list[frozenset[Output]] = []
        self.computed: list[tuple[int, ...]] = []
        self.loaded: list[ToyRuntime] = []

    def validate(self, request: Request) -> None:
        if request.options.prompt_name is not None:
            raise InvalidRequest(f"unknown prompt {request.options.prompt_name!r}", param="prompt_name")

    def estimate_tokens(self, item: Item, request: Request) -> int:
        return self.estimate(item) + len((request.options.prompt or "").split())

    def tokenize(self, request: Request, start: int, stop: int) -> list[list[Sequence] | LemniError]:
        items = request.items[start:stop]
        self.tokenizes(items, request.first_item + start)
        outputs = tuple(_OUTPUTS[task] for task in request.tasks)
        outcomes: list[list[Sequence] | LemniError] = []
        for item in items:
            if item == "refused":
                outcomes.append(InvalidRequest("refused"))
            else:
                parts = parts_of(item)
                outcomes.append(
                    [
                        Sequence(np.array(ids, np.int32), outputs if computed else (), truncated=ids[-1:] == [77])
                        for ids, computed in parts
                    ]
                )
        return outcomes

    def new_runtime(self, replica: int) -> ToyRuntime:
        self.loads(replica)
        runtime = ToyRuntime(self)
        self.loaded.append(runtime)
        return runtime

    def express_runtime(self) -> ToyRuntime:
        return self.new_runtime(-1)

    def finish(self, items: Seq[Seq[Row]], request: Request) -> Result:
        fields: dict[str, object] = {}
        if "embed" in request.tasks:
            zeros = np.zeros(DIM, np.float32)
            sums = [np.sum([row.outputs.get("dense", zeros) for row in rows], axis=0) for rows in items]
            stacked = np.stack(sums) + np.float32(0.0 if request.options.normalize is False else 0.5)
            fields["vectors"] = np.ascontiguousarray(stacked[:, : request.options.dimensions])
        if "tokens" in request.tasks:
            empty = np.zeros((0, 2), np.float32)
            fields["multi_vectors"] = tuple(
                np.concatenate([row.outputs.get("tokens", empty) for row in rows]) for rows in items
            )
        return Result.of(items, **fields)


_OUTPUTS: dict[Task, Output] = {"embed": "dense", "tokens": "tokens"}


class ToyRuntime:
    def __init__(self, model: ToyModel) -> None:
        self.model = model
        self.device = model.device
        self.limits = model.limits
        self.closed = False

    def run(self, batch: PackedBatch) -> list[Outputs]:
        model = self.model
        assert not self.closed
        sequences = [tuple(s.tolist()) for s in np.split(batch.ids, batch.starts[1:])]
        ids = set(batch.ids.tolist())
        model.batches.append(batch.lengths.tolist())
        model.wanted.append(batch.wanted)
        for gated in ids & model.gates.keys():
            model.gates[gated].pass_through()
        if ids & model.raises:
            raise ValueError(f"cannot compute {sorted(ids & model.raises)}")
        if ids & model.dies:
            raise SystemExit(f"killed by {sorted(ids & model.dies)}")
        if ids & model.dies_once:
            model.dies_once -= ids
            raise SystemExit("killed once")
        if model.memory is not None and batch.tokens > model.memory:
            raise model.memory_error(f"{batch.tokens} tokens")
        rows = [self._outputs(ids, batch.wanted) for ids in sequences]
        model.computed.extend(sequences)
        return rows[1:] if ids & model.shapes else rows

    def _outputs(self, ids: tuple[int, ...], wanted: frozenset[Output]) -> Outputs:
        found: dict[Output, NDArray[np.float32]] = {
            "dense": row_of(ids),
            "tokens": np.array([(i, i * i) for i in ids], np.float32),
        }
        if self.model.nans & set(ids):
            for array in found.values():
                array[-1] = np.nan
        return {name: array for name, array in found.items() if name in wanted}

    def close(self) -> None:
        self.closed = True


def settings(**changes: object) -> EngineSettings:
    return EngineSettings.model_validate(changes)


def engine_of(model: ToyModel, **changes: object) -> Engine:
    return Engine({"toy": model}, settings(**changes), reload_pause_s=0.01)


def request(*items: Item, **changes: object) -> Request:
    return Request(items=list(items), **changes)  # type: ignore[arg-type]


@contextmanager
def plugged(model: ToyModel, engine: Engine) -> Iterator[Callable[[], None]]:
    """While the block lasts, a plug ("999 999") keeps the only replica busy; afterwards everything is finished.

    Yields a function that returns when all that was submitted has been tokenised.
    """
    model.gates[999] = gate = Gate()
    engine.submit("toy", request("999 999"))
    gate.wait_entered()
    served = engine._models["toy"].served
    changed = threading.Condition()
    add = served.add

    def spy(*arguments: object) -> None:
        add(*arguments)  # type: ignore[arg-type]
        with changed:
            changed.notify()

    def settle() -> None:
        with changed:
            assert changed.wait_for(lambda: not any(flow.reserved for flow in list(served._jobs)), PATIENCE_S)

    served.add = spy  # type: ignore[method-assign]
    yield settle
    settle()
    del model.gates[999]
    gate.open()
    assert served.drain(PATIENCE_S)


class Watch:
    """Hears of every change in the number of live replicas."""

    def __init__(self, engine: Engine) -> None:
        self._alive: SimpleQueue[int] = SimpleQueue()
        served = engine._models["toy"].served
        told = served.set_replicas

        def spy(alive: int, total: int, outage: str | None) -> None:
            told(alive, total, outage)
            self._alive.put(alive)

        served.set_replicas = spy  # type: ignore[method-assign]

    def wait_for(self, alive: int) -> None:
        while self._alive.get(timeout=PATIENCE_S) != alive:
            pass
