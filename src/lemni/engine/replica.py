"""One replica: a runtime and the thread that feeds it. Take work, pack, run, hand on.

A forward pass that raises is tried again in halves until the guilty sequence is alone; running out of memory also
halves the replica's budget, and good passes double it again. A thread that dies, or is declared dead by the
watchdog, gives its works back once and touches nothing afterwards; `replicas.py` replaces it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np

from lemni.engine import failures
from lemni.engine.alarm import Alarm
from lemni.engine.failures import log
from lemni.engine.finishing import Finisher
from lemni.engine.scheduler import Work
from lemni.engine.served import ServedModel
from lemni.engine.slots import Slot, Slots
from lemni.runtimes.base import Runtime
from lemni.types import Outputs, PackedBatch, Sequence

MAX_FAILURES = 16
"""Forward passes that fail one after the other before the replica is tried with `BENIGN`, in case it is broken."""

BENIGN = Sequence(np.zeros(1, np.int32), outputs=())
"""One token, the first of any vocabulary: what does not compute this computes nothing."""

CALM_PASSES = 64
MAX_CALM_PASSES = 4096
"""Good passes until a budget that memory has halved is doubled again: so many after the first halving, twice as many
after every further one, up to the second number."""


class ReplicaBroken(Exception):
    """Nothing works on this replica any more, such as after an error that poisons a GPU context."""


class Replica:
    """Attributes:
    budget: tokens of one batch; less than at the start after memory ran out.
    label: for the log.
    tells_speed: whether its passes say how fast a replica is.
    """

    label: str
    tells_speed = True

    def __init__(
        self,
        index: int,
        runtime: Runtime,
        budget: int,
        *,
        served: ServedModel,
        finisher: Finisher,
        slots: Slots,
        alarm: Alarm,
        forward_timeout_s: float,
        on_death: Callable[[Replica, BaseException], None],
    ) -> None:
        self.index = index
        if index >= 0:
            self.label = f"replica {index}"
        self.budget = budget
        self._full_budget = budget
        self._calm = 0  # good passes since the budget last changed
        self._calm_needed = 0
        self._enough = runtime.limits.efficient_tokens or budget
        self._runtime = runtime
        self._served = served
        self._finisher = finisher
        self._slots = slots
        self._alarm = alarm
        self._forward_timeout_s = forward_timeout_s
        self._on_death = on_death
        self._lock = threading.Lock()  # guards the five below, which the watchdog looks at
        self._aboard: set[Work] = set()
        self._slot: Slot | None = None
        self._pass = 0  # number of the forward pass that runs
        self._long = False  # the pass that runs keeps small requests waiting
        self._dead = False
        self._failures = 0  # since the last forward pass that succeeded
        self._thread = threading.Thread(target=self._run, name=f"lemni-{served.name}-{index}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread. Returns whether it has ended."""
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._dead and self._served.wait_for_work():
                self._step()
        except BaseException as cause:
            self._die(cause)
        finally:
            close_quietly(self._runtime)

    def _step(self) -> None:
        slot = self._slots.acquire()  # before taking work, so that the batch holds what came while waiting
        try:
            works = self._served.take(self.budget, self._enough)
            if works:
                long = self._served.begin_pass(works, self._enough)
                with self._lock:
                    self._slot = slot
                    self._aboard = set(works)
                    self._long = long
                self._compute(works)
        finally:
            self._end_pass()
            slot.release()

    def _end_pass(self) -> None:
        """Idempotent, and from any thread: the watchdog ends a stuck pass."""
        with self._lock:
            long, self._long = self._long, False
        if long:
            self._served.end_long_pass()

    def _compute(self, works: list[Work]) -> None:
        groups = [works]
        while groups and not self._dead:
            wanted = self._served.still_wanted(groups.pop())  # one that failed may have ended other requests' works
            if not wanted:
                continue
            group, *others = cut(wanted, self.budget)  # it may have shrunk meanwhile
            groups.extend(reversed(others))
            try:
                rows = self._forward(group)
            except Exception as error:
                self._failures += 1
                if self._failures >= MAX_FAILURES:
                    self._probe(error)
                groups.extend(reversed(self._smaller(group, error)))
            else:
                self._failures = 0
                self._grow()
                finite = all(map(failures.is_finite, rows))
                if len(group) > 1 and not finite:
                    groups.extend(reversed(_halves(group)))  # the NaN of one sequence may have spread to the others
                elif self._land(group):
                    self._hand_on(group, rows, finite)

    def _probe(self, error: Exception) -> None:
        """Tell many bad inputs in a row from a broken replica. Raises ReplicaBroken."""
        try:
            self._run_pass([BENIGN])
        except Exception:
            raise ReplicaBroken(f"{MAX_FAILURES} forward passes and one of a single token failed") from error
        self._failures = 0

    def _hand_on(self, group: list[Work], rows: list[Outputs], finite: bool) -> None:
        if finite:
            self._finisher.put(group, rows)
        else:
            self._served.complete(group, rows)  # at once: it ends requests, whose other works need not run

    def _forward(self, group: list[Work]) -> list[Outputs]:
        """A row for each work."""
        started = time.monotonic()
        rows = self._run_pass([work.sequence for work in group])
        took_s = time.monotonic() - started
        self._served.ran(sum(work.tokens for work in group), took_s if self.tells_speed else None)
        return rows

    def _run_pass(self, sequences: list[Sequence]) -> list[Outputs]:
        """One pass under the watchdog's eyes: a row for each sequence."""
        batch = PackedBatch.pack(sequences)
        number = self._pass = self._pass + 1
        watch = self._alarm.after(self._forward_timeout_s, lambda: self._overdue(number))
        try:
            rows = self._runtime.run(batch)
        finally:
            self._alarm.cancel(watch)
            with self._lock:
                self._pass += 1
        if len(rows) != len(sequences):
            raise RuntimeError(f"the runtime gave {len(rows)} rows for {len(sequences)} sequences")
        return rows

    def _smaller(self, group: list[Work], error: Exception) -> list[list[Work]]:
        """What to run instead of a group that failed; nothing if one sequence is all there was."""
        if len(group) == 1:
            if self._land(group):
                doing = f"a sequence of {group[0].tokens} tokens"
                self._served.fail(group, failures.internal(error, f"{self._served.name}: {doing}"))
            return []
        if is_out_of_memory(error):
            self._shrink(error)
        return _halves(group)

    def _shrink(self, error: Exception) -> None:
        name, old = self._served.name, self.budget
        self._calm = 0
        self._calm_needed = min(max(CALM_PASSES, 2 * self._calm_needed), MAX_CALM_PASSES)
        self.budget = max(1, old // 2)
        message = "%s: %s is out of memory; token budget %d -> %d (%s)"
        log.warning(message, name, self.label, old, self.budget, error)

    def _grow(self) -> None:
        """A pass succeeded: what took the memory may be gone."""
        if self.budget >= self._full_budget:
            return
        self._calm += 1
        if self._calm >= self._calm_needed:
            self._calm = 0
            self.budget = min(2 * self.budget, self._full_budget)
            log.info("%s: %s tries a token budget of %d again", self._served.name, self.label, self.budget)

    def _land(self, group: list[Work]) -> bool:
        """The group is no longer aboard. False if the replica is dead: somebody else has its works."""
        with self._lock:
            if self._dead:
                return False
            self._aboard.difference_update(group)
            return True

    def _overdue(self, number: int) -> None:
        """The watchdog: a forward pass has run out of its time."""
        with self._lock:
            if self._pass != number:
                return
        self._die(TimeoutError(f"a forward pass took over {self._forward_timeout_s:g} s"))

    def _die(self, cause: BaseException) -> None:
        with self._lock:
            if self._dead:
                return
            self._dead = True
            works = sorted(self._aboard, key=lambda work: work.serial)
            self._aboard.clear()
            slot = self._slot
        self._end_pass()
        if slot is not None:
            slot.release()
        try:
            self._on_death(self, cause)
        except BaseException:  # such as no thread to be had for loading: the works must not be lost for that
            log.exception("%s: %s cannot be replaced", self._served.name, self.label)
        finally:
            self._served.requeue(works)


def _halves(group: list[Work]) -> list[list[Work]]:
    half = len(group) // 2
    return [group[:half], group[half:]]


def cut(works: list[Work], budget: int) -> list[list[Work]]:
    """Runs of works of at most `budget` tokens, or of one work, in the order given. At least one work."""
    groups: list[list[Work]] = []
    room = 0
    for work in works:
        if not groups or work.tokens > room:
            groups.append([])
            room = budget
        groups[-1].append(work)
        room -= work.tokens
    return groups


def is_out_of_memory(error: Exception) -> bool:
    """Told by name too: torch's OutOfMemoryError is a RuntimeError, and torch need not be installed."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def close_quietly(runtime: Runtime) -> None:
    try:
        runtime.close()
    except Exception:
        log.exception("closing a runtime failed")
