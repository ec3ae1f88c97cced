"""Which waiting sequences make the next batch. A pure data structure: no thread, no clock, no model.

A *flow* is one request. A *work* is one distinct sequence that somebody waits for: equal sequences in flight,
waiting or running, of one request or of several, are one work with several wanters, computed once.
Flows share the forward passes fairly, by weight, in tokens (`fair.py`); `take` cuts one packed batch by a token
budget. Within a flow the longest works go first and together, because runtimes may pad inside attention.
`served.py` holds one scheduler per model, under its lock.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable
from enum import Enum
from itertools import count
from typing import TypeAlias

from lemni.engine.fair import FairQueue, Share, Turn
from lemni.types import Priority, Sequence

NO_LIMIT = sys.maxsize
MAX_SKIPPED = 16
"""Flows whose next work did not fit that `take` passes over before it calls a batch full."""

SMALL_WORKS = 32
"""A request of more sequences than these is not small, whatever their length."""
BRIEF_BATCHES = 256
"""Batches for which large requests leave room after a small one of at least their weight was seen."""


Place: TypeAlias = tuple[int, int]
"""Of a sequence in its request: index of the item, and which of the item's sequences."""


class State(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    GONE = "gone"


class Flow(Share):
    """One request's waiting works.

    Attributes:
        reserved: estimated tokens of items that are not tokenised yet.
        tokens: of all its sequences so far, computed or not; equal ones once.
        works: number of those.
        wanted: its works that are not complete, waiting or running.
        pending: (room, -serial, work), ascending: the longest, and among equals the oldest, is last.
            Works that another flow has taken, or that must run alone by now, stay until they come up.
    """

    __slots__ = ("pending", "reserved", "tokens", "wanted", "works")

    def __init__(self, weight: int, reserved: int) -> None:
        super().__init__(weight)
        self.reserved = reserved
        self.tokens = 0
        self.works = 0
        self.wanted: set[Work] = set()
        self.pending: list[tuple[int, int, Work]] = []

    def longest(self) -> Work | None:
        """The next work, if any waits."""
        while self.pending and self.pending[-1][2].state is not State.WAITING:
            self.pending.pop()
        return self.pending[-1][2] if self.pending else None

    def is_small(self, enough: int) -> bool:
        """Whether the whole request has at most twice `enough` tokens: the tail of a large one is not small."""
        return self.works <= SMALL_WORKS and self.tokens + self.reserved <= 2 * enough

    def pick(self, room: int) -> Work | None:
        """Take out the longest work that fits into `room`, unless it is under half of the longest that waits:
        much shorter ones are left for batches of their like."""
        longest = self.longest()
        if longest is None or longest.room <= room:
            return self.pending.pop()[2] if longest else None
        at = bisect_right(self.pending, (room, 1)) - 1
        while at >= 0 and 2 * self.pending[at][0] >= longest.room:
            needed, _, work = self.pending.pop(at)
            if work.state is State.WAITING and work.room == needed:
                return work
            at -= 1
        return None


class Work:
    """One distinct sequence to compute, and who wants its row.

    Attributes:
        wanters: (flow, place in its request); the same flow may be there twice.
        deaths: replicas that died with this work aboard.
        started: when its batch was taken, by the clock of whoever takes.
    """

    __slots__ = ("deaths", "key", "sequence", "serial", "started", "state", "tokens", "wanters")

    def __init__(self, sequence: Sequence, key: object, serial: int) -> None:
        self.sequence = sequence
        self.key = key
        self.serial = serial
        self.tokens = len(sequence)
        self.state = State.WAITING
        self.wanters: list[tuple[Flow, Place]] = []
        self.deaths = 0
        self.started = 0.0

    @property
    def room(self) -> int:
        """Tokens of budget that it takes up; all of it if it may have killed a replica, so that it runs alone."""
        return NO_LIMIT if self.deaths else self.tokens


class Scheduler:
    """Attributes:
    max_tokens: bound of `waiting_tokens`, for `excess`.
    waiting_tokens: reserved and waiting; running ones no longer count.
    waiting: number of works that wait.
    running: number of works that run.
    """

    def __init__(self, max_tokens: int, interactive_weight: int) -> None:
        self.max_tokens = max_tokens
        self.waiting_tokens = 0
        self.waiting = 0
        self.running = 0
        self._interactive_weight = interactive_weight
        self._queue: FairQueue[Flow] = FairQueue()
        self._works: dict[object, Work] = {}
        self._serials = count()
        self._takes = 0
        self._brief: dict[int, int] = {}  # weight of small requests -> the take up to which they are given room

    def excess(self, tokens: int) -> int:
        """By how many tokens another request of `tokens` would be over the bound; 0 if it fits."""
        return max(0, self.waiting_tokens + tokens - self.max_tokens)

    def admit(self, tokens: int, priority: Priority) -> Flow:
        """A new flow that will bring about `tokens` tokens. The caller has looked at `excess`."""
        self.waiting_tokens += tokens
        return Flow(self._interactive_weight if priority == "interactive" else 1, tokens)

    def add(self, flow: Flow, wanted: Iterable[tuple[Place, Sequence, object]], reserved: int) -> int:
        """Sequences of `flow`, as (place, sequence, its key), in place of `reserved` estimated tokens.
        Returns how many joined a work that was there already."""
        self._release(flow, reserved)
        joined = 0
        fresh = []
        for place, sequence, key in wanted:
            work = self._works.get(key)
            if work is None:
                work = self._works[key] = Work(sequence, key, next(self._serials))
                self.waiting += 1
                self.waiting_tokens += work.tokens
            else:
                joined += 1
            work.wanters.append((flow, place))
            if work not in flow.wanted:
                flow.wanted.add(work)
                flow.tokens += work.tokens
                flow.works += 1
                if work.state is State.WAITING:
                    fresh.append(work)
        self._enqueue(flow, fresh)
        return joined

    def take(self, budget: int, enough: int = NO_LIMIT, *, short: bool = True) -> list[Work]:
        """The next batch: at most `budget` tokens, or one longer sequence alone. Empty if nothing waits.

        A request of at most twice `enough` tokens is *small*. While small ones come, large ones of no more weight fill
        batches only up to `enough` (if `short`) and none where a small one is aboard, so that this waits for a short
        pass and has one of its own.
        """
        self._takes += 1
        small_aboard = False

        def most(flow: Flow, room: int) -> int:
            nonlocal small_aboard
            if flow.is_small(enough):
                small_aboard = True
                self._brief[flow.weight] = self._takes + BRIEF_BATCHES
            elif enough < budget and self._leaves_room(flow):
                if small_aboard:
                    return 0
                return min(room, max(0, enough - (budget - room))) if short else room
            return room

        return self._fill(budget, most)

    def take_small(self, budget: int, enough: int) -> list[Work]:
        """As `take`, of small requests only, however many large ones are before them."""
        if not self._small_waits(enough):
            return []
        return self._fill(budget, lambda flow, room: room if flow.is_small(enough) else -1)

    def knows_small(self, enough: int) -> bool:
        """Whether a small request was taken before, or waits."""
        return bool(self._brief) or self._small_waits(enough)

    def _small_waits(self, enough: int) -> bool:
        return any(flow.is_small(enough) for flow in self._queue.waiting())

    def _fill(self, budget: int, most: Callable[[Flow, int], int]) -> list[Work]:
        """A batch by turns. `most` tells how many tokens a flow may add to a batch with room for so many; less than
        none, and it does not get the first place either."""
        batch: list[Work] = []
        room = budget
        skipped: list[Turn[Flow]] = []
        misfits = 0
        while room > 0 and misfits < MAX_SKIPPED and (flow := self._queue.first()):
            limit = most(flow, room)
            work = flow.pick(limit if batch else NO_LIMIT) if limit >= 0 else None
            if work is not None:
                self._start(work)
                batch.append(work)
                room -= work.room
                self._queue.serve(flow, work.tokens)
                self._wait_or_leave(flow)
            elif flow.pending:
                skipped.append(self._queue.skip())
                misfits += limit >= 0
            else:
                self._queue.leave(flow)
        self._queue.restore(skipped)
        return batch

    def is_long(self, batch: list[Work], enough: int) -> bool:
        """Whether a batch keeps a replica from small requests: over `enough` tokens, and some of large requests."""
        large = any(not flow.is_small(enough) for work in batch for flow, _ in work.wanters)
        return large and sum(work.tokens for work in batch) > enough

    def requeue(self, works: Iterable[Work]) -> None:
        """Works whose replica died wait again, and will run alone: one of them may have been the cause."""
        for work in works:
            if work.state is not State.RUNNING:
                continue
            work.deaths += 1
            if not work.wanters:
                self.complete(work)
                continue
            work.state = State.WAITING
            self.running -= 1
            self.waiting += 1
            self.waiting_tokens += work.tokens
            for flow in {flow for flow, _ in work.wanters}:
                self._enqueue(flow, [work])

    def complete(self, work: Work) -> list[tuple[Flow, Place]]:
        """A running work has ended, well or badly: who wanted it. Nobody, if it had ended before."""
        if work.state is not State.RUNNING:
            return []
        work.state = State.GONE
        self.running -= 1
        del self._works[work.key]
        for flow, _ in work.wanters:
            flow.wanted.discard(work)
        return work.wanters

    def leave(self, flow: Flow) -> None:
        """The request has ended: what only it waited for is dropped, what runs for it is no longer wanted."""
        self._release(flow, flow.reserved)
        self._queue.leave(flow)
        for work in flow.wanted:
            work.wanters = [wanter for wanter in work.wanters if wanter[0] is not flow]
            if not work.wanters and work.state is State.WAITING:
                work.state = State.GONE
                self._unwait(work)
                del self._works[work.key]
        flow.wanted.clear()
        flow.pending.clear()

    def _leaves_room(self, large: Flow) -> bool:
        """Whether small requests came lately that `large` must not outweigh: small bulk ones hold up bulk only."""
        return any(weight >= large.weight and self._takes < until for weight, until in self._brief.items())

    def _release(self, flow: Flow, reserved: int) -> None:
        flow.reserved -= reserved
        self.waiting_tokens -= reserved

    def _enqueue(self, flow: Flow, works: list[Work]) -> None:
        flow.pending.extend((work.room, -work.serial, work) for work in works)
        flow.pending.sort()
        self._wait_or_leave(flow)

    def _wait_or_leave(self, flow: Flow) -> None:
        following = flow.longest()
        if following is None:
            self._queue.leave(flow)
        else:
            self._queue.wait(flow, following.tokens)

    def _start(self, work: Work) -> None:
        work.state = State.RUNNING
        self.running += 1
        self._unwait(work)

    def _unwait(self, work: Work) -> None:
        self.waiting -= 1
        self.waiting_tokens -= work.tokens
