"""Small requests beside a long forward pass: who takes them, and what becomes of a lane that fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lemni.engine import Engine
from lemni.engine.express import INDEX
from tests.engine.toy import PATIENCE_S, Gate, ToyModel, Watch, check, engine_of, request

ENOUGH = 4
LONG = " ".join(["9"] * 20)
"""A document of more than twice ENOUGH tokens; 9 waits at a gate."""


def toy(**changes: bool) -> ToyModel:
    return ToyModel(budget=64, efficient_tokens=ENOUGH, **{"express": True, **changes})  # type: ignore[arg-type]


@contextmanager
def long_pass(model: ToyModel, engine: Engine) -> Iterator[Gate]:
    """While the block lasts, the only replica is in a pass of a long document."""
    model.gates[9] = gate = Gate()
    handle = engine.submit("toy", request(LONG))
    gate.wait_entered()
    yield gate
    gate.open()
    check(handle.result(PATIENCE_S), [LONG])
    del model.gates[9]


def test_small_requests_pass_a_long_one() -> None:
    model = toy()
    with engine_of(model) as engine, long_pass(model, engine):
        for number in range(3):
            small = f"{number} 1 2"
            check(engine.submit("toy", request(small)).result(PATIENCE_S), [small])
        assert len(model.loaded) == 2  # the lane is loaded once
    assert all(runtime.closed for runtime in model.loaded)


def test_bulk_work_and_lone_requests_load_no_lane() -> None:
    model = toy()
    with engine_of(model) as engine:
        with long_pass(model, engine):
            pass
        check(engine.submit("toy", request("1 2")).result(PATIENCE_S), ["1 2"])
    assert len(model.loaded) == 1


def test_the_lane_is_there_before_the_next_small_request() -> None:
    """Once small requests are known, the first long pass has it loaded."""
    model = toy()
    loaded = threading.Event()
    model.loads = lambda replica: loaded.set() if replica == INDEX else None
    with engine_of(model) as engine:
        check(engine.submit("toy", request("1 2")).result(PATIENCE_S), ["1 2"])
        assert not loaded.is_set()
        with long_pass(model, engine):
            assert loaded.wait(PATIENCE_S)


def test_large_requests_wait_for_the_replica() -> None:
    model = toy()
    other = " ".join(["3"] * 12)
    with engine_of(model) as engine:
        with long_pass(model, engine):
            waiting = engine.submit("toy", request(other))
            many = engine.submit("toy", request(*["1"] * 2, *[f"{n} 5" for n in range(10)]))
            check(engine.submit("toy", request("1 2 7")).result(PATIENCE_S), ["1 2 7"])
            assert not waiting.done()
            assert not many.done()
        check(waiting.result(PATIENCE_S), [other])
        assert len(many.result(PATIENCE_S).vectors) == 12
    assert [3] in model.batches
    assert all(12 not in batch for batch in model.batches if 3 in batch)


def test_without_an_express_backend_they_wait() -> None:
    model = toy(express=False)
    with engine_of(model) as engine:
        with long_pass(model, engine):
            waiting = engine.submit("toy", request("1 2"))
            second = engine.submit("toy", request("3 4"))
            with pytest.raises(TimeoutError):
                waiting.result(0.2)
        check(waiting.result(PATIENCE_S), ["1 2"])
        check(second.result(PATIENCE_S), ["3 4"])
    assert len(model.loaded) == 1


def test_while_there_is_a_lane_large_requests_fill_their_passes() -> None:
    model = toy()
    with engine_of(model) as engine:
        with long_pass(model, engine):
            check(engine.submit("toy", request("1 2")).result(PATIENCE_S), ["1 2"])
            bulk = engine.submit("toy", request(*[f"{n} 1 1" for n in range(20)]))
        bulk.result(PATIENCE_S)
    assert [3] * 20 in model.batches


def test_a_lane_that_dies_is_opened_again() -> None:
    model = toy()
    model.dies_once = {5}
    with engine_of(model) as engine, long_pass(model, engine):
        for small in ("5 1", "2 3"):
            check(engine.submit("toy", request(small)).result(PATIENCE_S), [small])
    assert len(model.loaded) == 3


def test_a_lane_that_cannot_be_loaded_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    model = toy()
    tried = threading.Event()

    def load(replica: int) -> None:
        if replica == INDEX:
            tried.set()
            raise MemoryError("no room")

    model.loads = load
    with engine_of(model) as engine:
        with long_pass(model, engine):
            waiting = engine.submit("toy", request("1 2"))
            assert tried.wait(PATIENCE_S)
        check(waiting.result(PATIENCE_S), ["1 2"])
        check(engine.submit("toy", request("3 4")).result(PATIENCE_S), ["3 4"])
    assert "no express lane" in caplog.text


def test_errors_on_the_lane_are_the_requests_own() -> None:
    model = toy()
    model.raises = {6}
    with engine_of(model) as engine, long_pass(model, engine):
        bad = engine.submit("toy", request("6 1"))
        check(engine.submit("toy", request("2 3")).result(PATIENCE_S), ["2 3"])
        assert "cannot compute" not in str(bad.exception(PATIENCE_S))  # what went wrong inside is for the log


def test_the_setting_leaves_the_lane_out() -> None:
    model = toy()
    with engine_of(model, express=False) as engine:
        with long_pass(model, engine):
            waiting = engine.submit("toy", request("1 2"))
            with pytest.raises(TimeoutError):
                waiting.result(0.2)
        check(waiting.result(PATIENCE_S), ["1 2"])
    assert len(model.loaded) == 1


def test_a_pass_that_hangs_no_longer_counts_once_its_replica_is_replaced() -> None:
    model = toy()
    model.gates[9] = gate = Gate()
    with engine_of(model, forward_timeout_s=0.2) as engine:
        served = engine._models["toy"].served
        watch = Watch(engine)
        stuck = engine.submit("toy", request(LONG))
        gate.wait_entered()
        assert served._long_passes == 1
        del model.gates[9]
        watch.wait_for(1)
        check(stuck.result(PATIENCE_S), [LONG])
        assert served._long_passes == 0
        gate.open()
    assert served._long_passes == 0


def test_what_the_lane_computes_does_not_tell_how_fast_a_replica_is() -> None:
    model = toy()
    with engine_of(model) as engine:
        with long_pass(model, engine):
            check(engine.submit("toy", request("1 2")).result(PATIENCE_S), ["1 2"])
            status = engine.status()["toy"]
            assert (status.batches, status.tokens_per_s) == (1, 0.0)
        assert engine.status()["toy"].tokens_per_s > 0
