"""The whole engine, threads and all, under random requests, faults and cancellations.

Every request must end exactly once, with its own vectors in its own order or with the error that its own items
deserve; innocents succeed; batches keep the budget; nothing is left in the queue.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import dataclass

from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from lemni.engine import Engine, Handle
from lemni.errors import InternalError, InvalidOutput, InvalidRequest, LemniError, Unavailable
from lemni.types import Priority
from tests.engine.toy import PATIENCE_S, ToyModel, check, engine_of, request

RAISES, NAN, DIES, SHORT = 91, 92, 93, 94
DESERVED = {RAISES: InternalError, SHORT: InternalError, NAN: InvalidOutput, DIES: Unavailable}
BUDGET = 24


@dataclass(frozen=True)
class Plan:
    """One request: its items, and whether and how its caller gives it up."""

    items: tuple[str, ...]
    priority: Priority
    cancelled: bool

    def deserved(self) -> dict[int, type[LemniError]]:
        """Item index to the error that the item brings about."""
        errors: dict[int, type[LemniError]] = {}
        for index, item in enumerate(self.items):
            if item == "refused":
                errors[index] = InvalidRequest
            else:
                errors.update((index, error) for fault, error in DESERVED.items() if str(fault) in item.split())
        return errors


def text(tokens: list[int]) -> str:
    return " ".join(map(str, tokens))


# Few ids and short texts, so that equal texts are frequent; now and then one over the budget, one of several sequences,
# or one of which not all is computed.
texts = st.lists(st.integers(1, 3), min_size=1, max_size=5).map(text)
several = st.lists(st.tuples(st.sampled_from(["", "", "~"]), texts).map("".join), min_size=1, max_size=3).map(
    " | ".join
)
good_items = texts | several | st.just("4 " * 30)
bad_items = st.sampled_from([RAISES, NAN, SHORT, DIES]).map(lambda fault: f"1 {fault}") | st.just("refused")
plans = st.builds(
    Plan,
    items=st.lists(st.one_of(*[good_items] * 12, bad_items), min_size=1, max_size=10).map(tuple),
    priority=st.sampled_from(["interactive", "bulk"]),
    cancelled=st.sampled_from([False, False, False, True]),
)


def faulty(replicas: int, efficient_tokens: int | None = None) -> ToyModel:
    model = ToyModel(budget=BUDGET, replicas=replicas, efficient_tokens=efficient_tokens)
    model.raises, model.nans, model.dies, model.shapes = {RAISES}, {NAN}, {DIES}, {SHORT}
    return model


@contextmanager
def in_the_end_nothing_is_left(model: ToyModel, engine: Engine) -> Iterator[None]:
    yield
    engine.close()
    status = engine.status()["toy"]
    assert (status.waiting_tokens, status.waiting_sequences, status.running_sequences) == (0, 0, 0)
    assert status.open_requests == 0
    assert status.requests == status.completed + status.failed + status.cancelled
    assert all(len(lengths) == 1 or sum(lengths) <= BUDGET for lengths in model.batches)
    assert all(runtime.closed for runtime in model.loaded)
    assert all(entry.ring is None for _, _, entry in engine._alarm._heap), "no deadline and no watchdog is left"


def judge(plan: Plan, handle: Handle) -> None:
    if handle.cancelled():
        assert plan.cancelled
        return
    error = handle.exception(0)
    deserved = plan.deserved()
    if error is None:
        assert not deserved
        check(handle.result(0), plan.items)
    else:
        assert isinstance(error, LemniError)
        assert error.item in deserved, f"{error!r} but the items are {plan.items}"
        assert type(error) is deserved[error.item]


@given(
    callers=st.lists(st.lists(plans, min_size=1, max_size=6), min_size=1, max_size=4),
    replicas=st.integers(1, 3),
    tokenizers=st.integers(1, 3),
    efficient=st.none() | st.integers(1, BUDGET),
)
@examples(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_request_ends_once_and_as_it_deserves(
    callers: list[list[Plan]], replicas: int, tokenizers: int, efficient: int | None
) -> None:
    model = faulty(replicas, efficient)
    ended: list[tuple[Plan, Handle]] = []
    engine = engine_of(model, tokenizer_threads=tokenizers)
    engine.start()

    def call(own: list[Plan]) -> None:
        for plan in own:
            try:
                handle = engine.submit("toy", request(*plan.items, priority=plan.priority))
            except Unavailable:  # between a death and the new replica
                continue
            handle.add_done_callback(lambda handle, plan=plan: ended.append((plan, handle)))  # type: ignore[misc]
            handles.append(handle)
            if plan.cancelled:
                handle.cancel()

    handles: list[Handle] = []
    with in_the_end_nothing_is_left(model, engine):
        threads = [threading.Thread(target=call, args=(own,)) for own in callers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert not wait(handles, timeout=PATIENCE_S).not_done
    assert len(handles) == sum(map(len, callers)), "loading always succeeds here: nothing is refused"
    assert len(ended) == len(handles) == len({id(handle) for _, handle in ended})
    for plan, handle in ended:
        judge(plan, handle)


@given(own=st.lists(plans, min_size=1, max_size=12), close_after=st.integers(0, 12), replicas=st.integers(1, 2))
@examples(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_closing_at_any_moment_leaves_no_request_waiting(own: list[Plan], close_after: int, replicas: int) -> None:
    model = faulty(replicas)
    engine = engine_of(model)
    engine.start()
    handles: list[Handle] = []
    closing = threading.Thread(target=engine.close)
    refused = 0
    for number, plan in enumerate(own):
        if number == close_after:
            closing.start()
        try:
            handles.append(engine.submit("toy", request(*plan.items, priority=plan.priority)))
        except Unavailable:
            refused += 1
    if close_after >= len(own):
        closing.start()
    closing.join(PATIENCE_S)
    with in_the_end_nothing_is_left(model, engine):
        assert not wait(handles, timeout=PATIENCE_S).not_done
    assert len(handles) + refused == len(own)


@given(own=st.lists(plans, min_size=1, max_size=12), steps=st.lists(st.integers(0, 3), min_size=12, max_size=12))
@examples(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_tasks_that_are_cancelled_at_any_moment(own: list[Plan], steps: list[int]) -> None:
    model = faulty(1)
    engine = engine_of(model)
    engine.start()

    async def call(plan: Plan) -> None:
        deserved = plan.deserved()
        try:
            result = await engine.embed("toy", request(*plan.items, priority=plan.priority))
        except tuple(set(deserved.values())) as error:
            guilty = error.item
        else:
            guilty = None
            check(result, plan.items)
        assert guilty in deserved or (guilty is None and not deserved)

    async def main() -> None:
        tasks = []
        for plan, turns in zip(own, steps, strict=False):
            tasks.append(asyncio.create_task(call(plan)))
            for _ in range(turns):
                await asyncio.sleep(0)
            if plan.cancelled:
                tasks[-1].cancel()
        outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE_S)
        for plan, outcome in zip(own, outcomes, strict=True):
            assert outcome is None or (plan.cancelled and isinstance(outcome, asyncio.CancelledError)), repr(outcome)

    with in_the_end_nothing_is_left(model, engine):
        asyncio.run(main())
