"""The scheduler alone: what a batch holds, who joins whom, and how fair it is, without threads or models."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lemni.engine.scheduler import BRIEF_BATCHES, MAX_SKIPPED, NO_LIMIT, Flow, Place, Scheduler, State, Work
from lemni.types import Priority, Sequence

WEIGHT = 8


def sequence(tokens: int, mark: int = 0) -> Sequence:
    ids = np.zeros(tokens, np.int32)
    ids[0] = mark
    return Sequence(ids)


def scheduler(max_tokens: int = 10**9) -> Scheduler:
    return Scheduler(max_tokens, WEIGHT)


def flow_of(queue: Scheduler, *sequences: Sequence, priority: Priority = "interactive") -> Flow:
    flow = queue.admit(1, priority)
    queue.add(flow, [((index, 0), s, s.key) for index, s in enumerate(sequences)], 1)
    return flow


def distinct(lengths: list[int], start: int = 0) -> list[Sequence]:
    return [sequence(length, start + number) for number, length in enumerate(lengths)]


def tokens_of(batch: list[Work]) -> list[int]:
    return [work.tokens for work in batch]


def test_a_flow_gives_its_longest_first_and_similar_lengths_together() -> None:
    queue = scheduler()
    flow_of(queue, *distinct([3, 40, 5, 38, 4, 39]))
    assert [tokens_of(queue.take(80)) for _ in range(3)] == [[40, 39], [38, 5, 4, 3], []]


def test_what_does_not_fit_makes_room_for_the_next_that_is_half_as_long() -> None:
    queue = scheduler()
    flow_of(queue, *distinct([60, 50, 30, 10]))
    # Beside 60 neither 50 fits nor 30, and 10 is under half of 50; beside 50 there is room for 30.
    assert [tokens_of(queue.take(85)) for _ in range(3)] == [[60], [50, 30], [10]]


def test_a_small_request_is_found_behind_many_large_ones() -> None:
    queue = scheduler()
    for number in range(3 * MAX_SKIPPED):
        flow_of(queue, *distinct([6] * 60, 1000 * number))
    assert queue.take_small(200, enough=64) == []
    flow_of(queue, sequence(100, mark=7))  # its turn is after theirs
    assert tokens_of(queue.take_small(200, enough=64)) == [100]
    assert tokens_of(queue.take(12, enough=64)) == [6, 6]


def test_large_requests_leave_batches_short_while_small_ones_come() -> None:
    queue = scheduler()
    flow_of(queue, *distinct([10] * 4 * BRIEF_BATCHES), priority="bulk")
    assert len(queue.take(200, enough=30)) == 20  # alone it fills the budget
    for number in (10_000, 20_000, 30_000):
        flow_of(queue, *distinct([7, 8], number))
    assert sorted(tokens_of(queue.take(200, enough=30))) == [7, 7, 7, 8, 8, 8]  # all the small ones at once
    brief = [len(queue.take(200, enough=30)) for _ in range(BRIEF_BATCHES - 1)]
    assert brief == [3] * (BRIEF_BATCHES - 1)
    assert len(queue.take(200, enough=30)) == 20


def test_small_bulk_requests_do_not_hold_up_large_interactive_ones() -> None:
    queue = scheduler()
    flow_of(queue, *distinct([10] * 100))
    flow_of(queue, *distinct([10] * 100, 1000), priority="bulk")
    flow_of(queue, sequence(7, 2000), priority="bulk")
    batch = queue.take(207, enough=30)
    wanters = [work.wanters[0][0] for work in batch]
    assert sum(flow.weight == WEIGHT for flow in wanters) >= 16
    queue = scheduler()
    flow_of(queue, *distinct([10] * 100, 1000), priority="bulk")
    for mark in (2000, 2001):
        flow_of(queue, sequence(7, mark), priority="bulk")
        batch = queue.take(200, enough=30)
    assert sum(tokens_of(batch)) <= 30 + 7


def test_the_tail_of_a_large_request_is_not_small() -> None:
    """Without any small request all batches but the last are full: 25 of 512 sequences each."""
    queue = scheduler()
    for client in range(8):
        flow_of(queue, *distinct([20] * 64, 1000 * client))
    batches = [len(queue.take(512, enough=128)) for _ in range(21)]
    assert batches == [25] * 20 + [12]


def test_what_is_not_tokenised_yet_counts_for_a_requests_size() -> None:
    queue = scheduler()
    flow_of(queue, *distinct([10] * 50), priority="bulk")
    growing = queue.admit(40, "interactive")
    first = sequence(5, 1000)
    queue.add(growing, [((0, 0), first, first.key)], 10)
    assert sum(tokens_of(queue.take(100, enough=15))) == 95  # 30 more tokens are to come: not a small request
    queue.add(growing, [], 30)
    flow_of(queue, sequence(6, 1001))
    assert tokens_of(queue.take(100, enough=15)) == [6]
    assert tokens_of(queue.take(100, enough=15)) == [10]


def test_other_flows_fill_the_room_that_is_left() -> None:
    queue = scheduler()
    flow_of(queue, *distinct([60, 60]), priority="bulk")
    flow_of(queue, sequence(7, 100))
    assert [tokens_of(queue.take(70)) for _ in range(2)] == [[7, 60], [60]]


def test_a_sequence_over_the_budget_runs_alone() -> None:
    queue = scheduler()
    flow_of(queue, *distinct([200, 30, 200, 20]))
    assert [tokens_of(queue.take(64)) for _ in range(3)] == [[200], [200], [30, 20]]
    assert queue.take(64) == []


def test_equal_sequences_are_one_work_while_waiting_and_while_running() -> None:
    queue = scheduler()
    first = flow_of(queue, sequence(5), sequence(5), sequence(6))
    second = flow_of(queue, sequence(5))
    assert queue.waiting_tokens == 11
    batch = queue.take(100)
    third = flow_of(queue, sequence(6))
    assert queue.waiting_tokens == 0
    assert queue.take(100) == []
    assert {work.tokens: queue.complete(work) for work in batch} == {
        6: [(first, (2, 0)), (third, (0, 0))],
        5: [(first, (0, 0)), (first, (1, 0)), (second, (0, 0))],
    }
    assert queue.complete(batch[0]) == []
    flow_of(queue, sequence(6))
    assert tokens_of(queue.take(100)) == [6]


def test_sequences_that_differ_in_types_or_pooling_are_not_joined() -> None:
    queue = scheduler()
    ids = np.array([1, 2, 3], np.int32)
    flow_of(
        queue,
        Sequence(ids),
        Sequence(ids, token_types=np.array([0, 0, 1], np.int32)),
        Sequence(ids, pool_start=1),
        Sequence(ids, truncated=True),
    )
    assert tokens_of(queue.take(100)) == [3, 3, 3]


def test_a_shared_work_runs_once_at_the_turn_of_whoever_is_first() -> None:
    queue = scheduler()
    bulk = flow_of(queue, *distinct([50] * 4), sequence(20, 99), priority="bulk")
    query = flow_of(queue, sequence(20, 99))
    (shared,) = queue.take(20)
    assert queue.complete(shared) == [(bulk, (4, 0)), (query, (0, 0))]
    assert [tokens_of(queue.take(100)) for _ in range(3)] == [[50, 50], [50, 50], []]


def test_leaving_drops_what_nobody_else_wants() -> None:
    queue = scheduler()
    flow = flow_of(queue, sequence(5, 1), sequence(6, 2))
    other = flow_of(queue, sequence(6, 2))
    queue.leave(flow)
    queue.leave(flow)
    assert queue.waiting_tokens == 6
    (work,) = queue.take(100)
    queue.leave(other)
    late = flow_of(queue, sequence(6, 2))
    assert queue.complete(work) == [(late, (0, 0))]
    assert (queue.waiting_tokens, queue.waiting, queue.running) == (0, 0, 0)


def test_reserved_tokens_are_replaced_by_the_true_ones_and_freed_when_leaving() -> None:
    queue = scheduler(100)
    flow = queue.admit(60, "interactive")
    assert (queue.excess(40), queue.excess(41)) == (0, 1)
    queue.add(flow, [((0, 0), sequence(5), sequence(5).key)], 25)
    assert queue.waiting_tokens == 40
    queue.leave(flow)
    assert queue.waiting_tokens == 0


def test_after_a_death_works_run_one_by_one() -> None:
    queue = scheduler()
    flow = flow_of(queue, *distinct([5, 6]), sequence(7, 50))
    other = flow_of(queue, sequence(7, 50))
    batch = queue.take(100)
    flow_of(queue, sequence(90, 60))
    queue.requeue(batch)
    assert queue.waiting_tokens == 5 + 6 + 7 + 90
    batches = [queue.take(100) for _ in range(5)]
    assert sorted(tokens_of([work for batch in batches for work in batch])) == [5, 6, 7, 90]
    assert [len(batch) for batch in batches if batch] == [1, 1, 1, 1]
    assert [work.deaths for batch in batches for work in batch if work.tokens < 90] == [1, 1, 1]
    (seven,) = (work for batch in batches for work in batch if work.tokens == 7)
    assert queue.complete(seven) == [(flow, (2, 0)), (other, (0, 0))]


def test_a_dead_replicas_works_that_nobody_wants_any_more_are_dropped() -> None:
    queue = scheduler()
    flow = flow_of(queue, sequence(5))
    batch = queue.take(10)
    queue.leave(flow)
    queue.requeue(batch)
    assert (queue.take(10), queue.waiting_tokens, queue.running) == ([], 0, 0)
    flow_of(queue, sequence(5))
    assert tokens_of(queue.take(10)) == [5]


# Fairness


@pytest.mark.parametrize("newcomers", [1, 4, 30])
@pytest.mark.parametrize(("small", "large"), [(300, 300), (20, 512), (300, 40), (120, 60), (20, 20)])
@pytest.mark.parametrize("enough", [NO_LIMIT, 128, 30])
@pytest.mark.parametrize(
    ("priority", "newcomers_priority", "parity"),
    [("bulk", "interactive", 1 / WEIGHT), ("interactive", "interactive", 1), ("interactive", "bulk", WEIGHT)],
)
def test_a_large_request_gets_its_share_under_a_constant_stream_of_new_ones(
    newcomers: int,
    small: int,
    large: int,
    enough: int,
    priority: Priority,
    newcomers_priority: Priority,
    parity: float,
) -> None:
    """`parity`: the large request's weight in units of a newcomer's."""
    queue = scheduler()
    marks = iter(range(10**9))
    everlasting = flow_of(queue, *distinct([large] * 10, next(marks) + 10**6), priority=priority)
    for _ in range(newcomers):
        flow_of(queue, sequence(small, next(marks)), priority=newcomers_priority)
    own = total = 0
    for _ in range(1500):
        for work in queue.take(512, enough):
            total += work.tokens
            if queue.complete(work)[0][0] is everlasting:
                own += work.tokens
                fresh = sequence(large, 10**7 + next(marks))
                queue.add(everlasting, [((0, 0), fresh, fresh.key)], 0)
            else:
                flow_of(queue, sequence(small, next(marks)), priority=newcomers_priority)
    assert own / total > 0.9 * parity / (parity + newcomers)


@given(
    crowd=st.lists(
        st.tuples(st.sampled_from(["interactive", "bulk"]), st.lists(st.integers(1, 60), min_size=1, max_size=12)),
        min_size=1,
        max_size=8,
    ),
    takes=st.integers(0, 12),
    late=st.integers(0, 8),
    tokens=st.integers(1, 40),
    budget=st.integers(8, 64),
    enough=st.integers(1, 64) | st.just(NO_LIMIT),
)
@settings(deadline=None)
def test_a_newcomer_is_passed_by_little(
    crowd: list[tuple[Priority, list[int]]], takes: int, late: int, tokens: int, budget: int, enough: int
) -> None:
    """Others get at most one unit each, plus what their weight earns them while the newcomer's unit is due."""
    queue = scheduler()
    flows = []
    for number, (priority, lengths) in enumerate(crowd):
        if number == late:
            for _ in range(takes):
                queue.take(budget, enough)
        flows.append(flow_of(queue, *distinct(lengths, 1000 * (number + 1)), priority=priority))
    if late >= len(crowd):
        for _ in range(takes):
            queue.take(budget, enough)
    bound = budget
    for flow in flows:
        if (longest := flow.longest()) is not None:
            bound += longest.tokens + tokens * flow.weight / WEIGHT
    newcomer = flow_of(queue, sequence(tokens))
    passed = 0
    batch = queue.take(budget, enough)
    while newcomer not in {flow for work in batch for flow, _ in work.wanters}:
        passed += sum(tokens_of(batch))
        batch = queue.take(budget, enough)
    assert passed <= bound


def test_a_large_request_saves_up_no_credit_while_others_come_and_go() -> None:
    queue = scheduler()
    large = flow_of(queue, *distinct([600] * 20), priority="bulk")
    for number in range(300):
        flow_of(queue, sequence(512, 100 + number), priority="bulk")
    while queue.waiting > 20:
        (work,) = queue.take(512)
        assert queue.complete(work)[0][0] is not large
    flow_of(queue, sequence(10))
    assert [tokens_of(queue.take(512)) for _ in range(2)] == [[600], [10]]


# Everything at once


class SchedulerMachine(RuleBasedStateMachine):
    """Random arrivals, takes, ends, deaths and cancellations, against a plain account of who waits for what."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = scheduler()
        self.reserved: dict[Flow, int] = {}
        self.owed: dict[Flow, dict[Place, int]] = {}  # live flow -> place in its request -> id of the sequence
        self.lengths: dict[int, int] = {}  # id of a sequence -> its tokens
        self.next_index: dict[Flow, int] = {}
        self.running: list[Work] = []

    def live(self) -> list[Flow]:
        return list(self.owed)

    @rule(priority=st.sampled_from(["interactive", "bulk"]), estimate=st.integers(0, 50))
    def admit(self, priority: Priority, estimate: int) -> None:
        flow = self.queue.admit(estimate, priority)
        self.reserved[flow] = estimate
        self.owed[flow] = {}
        self.next_index[flow] = 0

    @precondition(lambda self: self.owed)
    @rule(data=st.data(), marks=st.lists(st.integers(1, 25), min_size=1, max_size=8))
    def add(self, data: st.DataObject, marks: list[int]) -> None:
        flow = data.draw(st.sampled_from(self.live()))
        part = data.draw(st.integers(0, self.reserved[flow]))
        self.reserved[flow] -= part
        wanted = []
        for mark in marks:  # the length follows from the mark, so that equal marks are equal sequences
            made = sequence(1 + mark * 7 % 23, mark)
            self.lengths[mark] = len(made)
            place = divmod(self.next_index[flow], 2)  # every item becomes two sequences
            wanted.append((place, made, made.key))
            self.owed[flow][place] = mark
            self.next_index[flow] += 1
        self.queue.add(flow, wanted, part)

    @rule(budget=st.integers(1, 40), enough=st.integers(1, 60) | st.just(NO_LIMIT))
    def take(self, budget: int, enough: int) -> None:
        had = self.queue.waiting
        batch = self.queue.take(budget, enough)
        assert bool(batch) == bool(had), "a take gives something exactly if something waits"
        assert len(batch) == 1 or sum(tokens_of(batch)) <= budget
        assert len(batch) == 1 or not any(work.deaths for work in batch)
        assert all(work.state is State.RUNNING and work.wanters for work in batch)
        assert not set(batch) & set(self.running)
        self.running += batch

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        work = data.draw(st.sampled_from(self.running))
        self.running.remove(work)
        mark = int(work.sequence.ids[0])
        for flow, place in self.queue.complete(work):
            assert self.owed[flow].pop(place) == mark, "a row goes once to each place that has its ids"

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        aboard = data.draw(st.lists(st.sampled_from(self.running), unique=True, min_size=1))
        self.queue.requeue(aboard)
        self.running = [work for work in self.running if work not in aboard]

    @precondition(lambda self: self.owed)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        flow = data.draw(st.sampled_from(self.live()))
        self.queue.leave(flow)
        del self.owed[flow], self.reserved[flow]

    @invariant()
    def accounts_agree(self) -> None:
        wanted = {mark for owed in self.owed.values() for mark in owed.values()}
        running = {int(work.sequence.ids[0]) for work in self.running}
        assert len(running) == len(self.running), "one sequence never runs twice at once"
        waiting = wanted - running
        assert self.queue.waiting == len(waiting)
        assert self.queue.running == len(running)
        assert self.queue.waiting_tokens == sum(self.reserved.values()) + sum(self.lengths[mark] for mark in waiting)

    def teardown(self) -> None:
        """Every item gets its row in the end, and nothing is left behind."""
        while self.queue.waiting:
            self.take(30, 10)
        while self.running:
            work = self.running.pop()
            for flow, place in self.queue.complete(work):
                del self.owed[flow][place]
        assert not any(self.owed.values())
        for flow in self.live():
            self.queue.leave(flow)
        assert (self.queue.waiting_tokens, self.queue.running, self.queue._works) == (0, 0, {})
        assert self.queue._queue._weight == 0


SchedulerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestScheduler = SchedulerMachine.TestCase
