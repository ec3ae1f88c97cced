"""What goes wrong, fails alone: bad items, failing passes, memory, dead and stuck replicas, models that do not load."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence as Seq
from itertools import pairwise

import pytest

from lemni.engine import Engine
from lemni.engine.replica import CALM_PASSES, MAX_FAILURES
from lemni.errors import DeadlineExceeded, InternalError, InvalidOutput, InvalidRequest, LemniError, Unavailable
from lemni.types import Item
from tests.engine.toy import (
    PATIENCE_S,
    Gate,
    OutOfMemoryError,
    ToyModel,
    Watch,
    check,
    engine_of,
    plugged,
    request,
    settings,
)

# One item is guilty


@pytest.mark.parametrize("guilty", range(5))
def test_a_failing_batch_is_halved_until_the_guilty_sequence_is_alone(
    guilty: int, caplog: pytest.LogCaptureFixture
) -> None:
    model = ToyModel(budget=64)
    model.raises = {13}
    with engine_of(model) as engine:
        with plugged(model, engine):
            mates = [engine.submit("toy", request(f"{n} 1")) for n in range(5)]
            bad = engine.submit("toy", request(*[f"{n} 1" for n in range(guilty)], "13 2", "50"))
        for n, mate in enumerate(mates):
            check(mate.result(0), [f"{n} 1"])
        assert [2] * 6 + [1] in [sorted(lengths, reverse=True) for lengths in model.batches], "all were in one batch"
        assert model.batches.count([2]) + model.batches.count([1]) >= 1
        with pytest.raises(InternalError) as caught:
            bad.result(0)
        error = caught.value
        assert error.item == guilty
        assert type(error) is InternalError
        assert isinstance(error.__cause__, ValueError)
        assert "cannot compute" not in error.message
        ident = re.search(r"[0-9a-f]{12}", error.message)
        assert ident
        assert f"(error {ident.group()})" in caplog.text
        assert "cannot compute [13]" in caplog.text
        check(engine.submit("toy", request("1 2 3")).result(PATIENCE_S), ["1 2 3"])
        assert engine.ready()
        assert engine.status()["toy"].errors == {"internal_error": 1}


def test_halving_takes_few_passes() -> None:
    model = ToyModel(budget=64)
    model.raises = {13}
    with engine_of(model) as engine, plugged(model, engine):
        handles = [engine.submit("toy", request(f"{n} 1")) for n in range(32)]
    assert [n for n, handle in enumerate(handles) if handle.exception(0) is not None] == [13]
    assert sorted(map(len, model.batches[1:])) == [1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32]


def test_every_request_that_wants_the_guilty_sequence_gets_its_own_error() -> None:
    model = ToyModel(budget=64)
    model.raises = {13}
    with engine_of(model) as engine, plugged(model, engine):
        handles = [engine.submit("toy", request(*["1"] * n, "13", "2 2")) for n in range(3)]
        part = engine.submit("toy", request("1", "13", first_item=100))
    errors = [handle.exception(0) for handle in handles]
    assert [error.item for error in errors if isinstance(error, LemniError)] == [0, 1, 2]
    error = part.exception(0)
    assert isinstance(error, LemniError)
    assert error.item == 101
    assert len({id(error) for error in errors}) == 3
    assert model.batches.count([1]) >= 1


def test_not_a_number_fails_its_item_only(caplog: pytest.LogCaptureFixture) -> None:
    model = ToyModel(budget=64)
    model.nans = {13}
    with engine_of(model) as engine, plugged(model, engine):
        bad = engine.submit("toy", request("1", "2", "13 1"))
        good = engine.submit("toy", request("3", "4 4"))
    with pytest.raises(InvalidOutput, match="item 2") as caught:
        bad.result(0)
    assert caught.value.item == 2
    check(good.result(0), ["3", "4 4"])
    assert "NaN or infinity for 1 of" in caplog.text


def test_output_of_the_wrong_shape_is_a_failure() -> None:
    model = ToyModel(budget=64)
    model.shapes = {13}
    with engine_of(model) as engine, plugged(model, engine):
        bad = engine.submit("toy", request("1", "13 1"))
        good = engine.submit("toy", request("3", "4 4"))
    with pytest.raises(InternalError) as caught:
        bad.result(0)
    assert caught.value.item == 1
    assert "gave 0 rows for 1 sequences" in str(caught.value.__cause__)
    check(good.result(0), ["3", "4 4"])


def test_the_first_failing_item_stops_the_rest_of_its_request() -> None:
    model = ToyModel(budget=4)
    model.raises = {13}
    with engine_of(model) as engine, plugged(model, engine):
        bad = engine.submit("toy", request("13 13 13 13", *[f"{n} 1" for n in range(20, 60)]))
        good = engine.submit("toy", request("20 1"))
    assert isinstance(bad.exception(0), InternalError)
    check(good.result(0), ["20 1"])
    assert len(model.computed) < 10


@pytest.mark.parametrize("fault", ["raises", "nans"])
def test_what_nobody_wants_any_more_after_a_failure_is_not_run(fault: str) -> None:
    """One request of 100 bad sequences in one batch, and one good one: halve down to the first, not to each."""
    model = ToyModel(budget=512)
    setattr(model, fault, {13})
    with engine_of(model) as engine, plugged(model, engine):
        bad = engine.submit("toy", request(*[f"13 {n} 1" for n in range(100)]))
        good = engine.submit("toy", request("7"))
    assert bad.exception(0) is not None
    check(good.result(0), ["7"])
    assert [len(lengths) for lengths in model.batches[1:]] == [101, 50, 25, 12, 6, 3, 1, 2, 1]
    assert engine.status()["toy"].running_sequences == 0


# Tokenising and finishing


def test_an_item_that_the_model_refuses_is_named() -> None:
    with engine_of(ToyModel()) as engine:
        with pytest.raises(InvalidRequest, match="refused") as caught:
            engine.submit("toy", request(*["1"] * 70, "refused", "2")).result(PATIENCE_S)
        assert caught.value.item == 70
        with pytest.raises(InvalidRequest) as caught:
            engine.submit("toy", request("1", "refused", first_item=1000)).result(PATIENCE_S)
        assert caught.value.item == 1001
        assert engine.status()["toy"].waiting_tokens == 0


@pytest.mark.parametrize("raised", [ValueError("tokenizer"), SystemExit("tokenizer")])
def test_a_tokenizer_that_raises_fails_one_request(raised: BaseException) -> None:
    model = ToyModel()

    def tokenizes(items: Seq[Item], offset: int) -> None:
        if "13" in items:
            raise raised

    model.tokenizes = tokenizes
    with engine_of(model, tokenizer_threads=1) as engine:
        bad = engine.submit("toy", request("1", "2", "13", "3"))
        good = engine.submit("toy", request("3"))
        check(good.result(PATIENCE_S), ["3"])
        with pytest.raises(InternalError) as caught:
            bad.result(PATIENCE_S)
        assert caught.value.__cause__ is raised
        assert caught.value.item == (2 if isinstance(raised, Exception) else None)


def test_no_tokens_at_all_fails_the_item() -> None:
    with engine_of(ToyModel()) as engine:
        with pytest.raises(InternalError) as caught:
            engine.submit("toy", request("1", "")).result(PATIENCE_S)
        assert caught.value.item == 1
        check(engine.submit("toy", request("1")).result(PATIENCE_S), ["1"])


@pytest.mark.parametrize("raised", [ValueError("finish"), SystemExit("finish"), InvalidRequest("finish")])
def test_finishing_that_raises_fails_one_request(raised: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ToyModel(budget=64)
    finish = model.finish

    def raising(rows: list[object], options: object) -> object:
        if len(rows) == 2:
            raise raised
        return finish(rows, options)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "finish", raising)
    with engine_of(model) as engine, plugged(model, engine):
        bad = engine.submit("toy", request("1", "2"))
        good = engine.submit("toy", request("3"))
    check(good.result(0), ["3"])
    error = bad.exception(0)
    assert isinstance(error, InvalidRequest if isinstance(raised, InvalidRequest) else InternalError)
    assert raised in (error, error.__cause__)


# Memory


@pytest.mark.parametrize("error", [MemoryError, OutOfMemoryError])
def test_running_out_of_memory_shrinks_the_budget(error: type[Exception], caplog: pytest.LogCaptureFixture) -> None:
    model = ToyModel(budget=64)
    model.memory, model.memory_error = 20, error
    items = [f"{n} 1 2 3" for n in range(100)]
    with engine_of(model) as engine:
        check(engine.submit("toy", request(*items)).result(PATIENCE_S), items)
        shrunk = len(model.batches)
        check(engine.submit("toy", request(*items[::-1])).result(PATIENCE_S), items[::-1])
    assert all(sum(lengths) <= 20 for lengths in model.batches[shrunk:])
    assert sum(sum(lengths) > 20 for lengths in model.batches) <= 4
    assert caplog.text.count("is out of memory; token budget 64 -> 32") == 1
    assert caplog.text.count("is out of memory; token budget 32 -> 16") == 1
    assert caplog.text.count("is out of memory") == 2


def test_memory_that_is_short_for_a_moment_costs_little_budget_and_not_for_long() -> None:
    model = ToyModel(budget=512)
    with engine_of(model) as engine:
        (replica,) = engine._models["toy"].replicas._replicas.values()
        with plugged(model, engine):
            handles = [engine.submit("toy", request(f"{n} 2 3")) for n in range(2)]
            model.memory = 5
        for n, handle in enumerate(handles):
            check(handle.result(0), [f"{n} 2 3"])
        assert replica.budget == 256
        model.memory = None
        for n in range(CALM_PASSES - 3):  # two passes were the halves above
            check(engine.submit("toy", request(str(n))).result(PATIENCE_S), [str(n)])
        assert replica.budget == 256
        check(engine.submit("toy", request("1")).result(PATIENCE_S), ["1"])
        assert replica.budget == 512


def test_memory_that_stays_short_is_tried_more_and_more_seldom() -> None:
    model = ToyModel(budget=64)
    model.memory = 40
    with engine_of(model) as engine:
        items = [f"{n} 1 2 3" for n in range(8 * 10 * CALM_PASSES)]  # eight to a pass, mostly
        check(engine.submit("toy", request(*items)).result(PATIENCE_S), items)
    too_big = [number for number, lengths in enumerate(model.batches) if sum(lengths) > 40]
    passes = [later - sooner - 1 for sooner, later in pairwise(too_big)]
    assert passes == [CALM_PASSES, 2 * CALM_PASSES, 4 * CALM_PASSES]


def test_a_sequence_that_is_too_long_for_the_memory_fails_alone() -> None:
    model = ToyModel(budget=64)
    model.memory = 10
    with engine_of(model) as engine, plugged(model, engine):
        bad = engine.submit("toy", request("1", "2 " * 11))
        good = engine.submit("toy", request("3 " * 10, "4 " * 9, "5"))
    with pytest.raises(InternalError) as caught:
        bad.result(0)
    assert caught.value.item == 1
    check(good.result(0), ["3 " * 10, "4 " * 9, "5"])


# Replicas that die


def test_a_dead_replica_is_replaced_and_its_work_done_again() -> None:
    model = ToyModel(budget=64)
    model.dies = {13}
    loading = Gate()
    with engine_of(model) as engine:
        watch = Watch(engine)

        def loads(replica: int) -> None:
            model.dies = set()
            loading.pass_through()

        model.loads = loads
        with plugged(model, engine):
            handles = [engine.submit("toy", request(item)) for item in ("13 1", "2", "3 3")]
            waiting = engine.submit("toy", request("4 " * 64))
            model.gates[999].open()
            watch.wait_for(0)
            loading.wait_entered()
            assert not engine.ready()
            assert engine.status()["toy"].replicas_alive == 0
            late = engine.submit("toy", request("7"))
            loading.open()
        for handle, item in zip([*handles, waiting, late], ("13 1", "2", "3 3", "4 " * 64, "7"), strict=True):
            check(handle.result(0), [item])
        watch.wait_for(1)
        assert engine.ready()
        assert [runtime.closed for runtime in model.loaded] == [True, False]
    assert [runtime.closed for runtime in model.loaded] == [True, True]


def test_a_sequence_that_kills_two_replicas_fails_and_its_mates_succeed() -> None:
    model = ToyModel(budget=64)
    model.dies = {13}
    with engine_of(model) as engine:
        watch = Watch(engine)
        with plugged(model, engine):
            bad = engine.submit("toy", request("1", "13 1"))
            mates = [engine.submit("toy", request(f"{n} 2")) for n in range(5)]
        with pytest.raises(Unavailable, match=r"two replicas .* item 1") as caught:
            bad.result(0)
        assert caught.value.item == 1
        for n, mate in enumerate(mates):
            check(mate.result(0), [f"{n} 2"])
        for alive in (0, 1, 0, 1):
            watch.wait_for(alive)
        assert engine.ready()
    assert [runtime.closed for runtime in model.loaded] == [True, True, True]


def test_a_replica_on_which_nothing_works_any_more_is_replaced() -> None:
    """As after an error that poisons a GPU context: the runtime raises, whatever it is given."""
    model = ToyModel(budget=8)
    model.raises = set(range(100))

    def loads(replica: int) -> None:
        model.raises = set()

    with engine_of(model) as engine:
        model.loads = loads
        watch = Watch(engine)
        handles = [engine.submit("toy", request(f"{n} {n}")) for n in range(2 * MAX_FAILURES)]
        watch.wait_for(0)
        watch.wait_for(1)
        ends = [handle.exception(PATIENCE_S) for handle in handles]
        assert sum(end is not None for end in ends) < MAX_FAILURES
        for n, handle in enumerate(handles):
            if ends[n] is None:
                check(handle.result(0), [f"{n} {n}"])


def test_bad_inputs_in_a_row_do_not_condemn_a_replica() -> None:
    model = ToyModel()
    model.raises = {13}
    with engine_of(model) as engine:
        for n in range(2 * MAX_FAILURES + 1):
            assert type(engine.submit("toy", request(f"13 {n}")).exception(PATIENCE_S)) is InternalError
        check(engine.submit("toy", request("1")).result(PATIENCE_S), ["1"])
        status = engine.status()["toy"]
    assert model.computed == [(0,), (0,), (1,)], "probed twice with one benign token"
    assert (status.batches, status.failed, len(model.loaded)) == (1, 2 * MAX_FAILURES + 1, 1)


def test_failures_with_successes_in_between_do_not_condemn_a_replica() -> None:
    model = ToyModel()
    model.raises = {13}
    with engine_of(model) as engine:
        for _ in range(MAX_FAILURES + 1):
            assert isinstance(engine.submit("toy", request("13")).exception(PATIENCE_S), InternalError)
            check(engine.submit("toy", request("1")).result(PATIENCE_S), ["1"])
        assert engine.ready()
    assert len(model.loaded) == 1


def test_the_late_result_of_a_stuck_pass_is_ignored() -> None:
    model = ToyModel()
    model.gates[9] = first = Gate()
    with engine_of(model, forward_timeout_s=1.0) as engine:
        finisher, finished = engine._models["toy"].finisher, []
        put = finisher.put
        finisher.put = lambda works, rows: (finished.append(works), put(works, rows))  # type: ignore[method-assign]
        handle = engine.submit("toy", request("9"))
        first.wait_entered()
        (stuck,) = [thread for thread in threading.enumerate() if thread.name == "lemni-toy-0"]
        model.gates[9] = second = Gate()
        second.wait_entered()
        first.open()
        stuck.join(PATIENCE_S)
        assert finished == []
        assert engine.status()["toy"].running_sequences == 1
        second.open()
        check(handle.result(PATIENCE_S), ["9"])


def test_the_watchdog_spares_a_replica_whose_pass_has_just_ended() -> None:
    model = ToyModel()
    with engine_of(model) as engine:
        engine.submit("toy", request("9")).result(PATIENCE_S)
        engine._models["toy"].replicas._replicas[0]._overdue(1)
        assert engine.ready()


def test_one_place_that_cannot_be_loaded_does_not_stop_the_others() -> None:
    model = ToyModel(replicas=2)
    model.dies_once = {13}
    attempts = threading.Semaphore(0)

    def loads(replica: int) -> None:
        attempts.release()
        raise RuntimeError("device is gone")

    with engine_of(model) as engine:
        model.loads = loads
        check(engine.submit("toy", request("13")).result(PATIENCE_S), ["13"])
        for _ in range(3):
            assert attempts.acquire(timeout=PATIENCE_S)
        check(engine.submit("toy", request("1")).result(PATIENCE_S), ["1"])
        assert not engine.ready()
        assert engine.status()["toy"].replicas_alive == 1


def test_the_works_of_a_replica_that_cannot_be_replaced_are_done_by_another(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_thread(replica: object, cause: BaseException) -> None:
        raise RuntimeError("can't start new thread")

    model = ToyModel(replicas=2)
    model.dies_once = {13}
    with engine_of(model) as engine:
        for replica in engine._models["toy"].replicas._replicas.values():
            monkeypatch.setattr(replica, "_on_death", no_thread)
        check(engine.submit("toy", request("13")).result(PATIENCE_S), ["13"])
    assert "cannot be replaced" in caplog.text


def test_a_stuck_forward_pass_is_left_behind() -> None:
    model = ToyModel(budget=64)
    model.gates[9] = stuck = Gate()
    with engine_of(model, forward_timeout_s=0.5) as engine:
        watch = Watch(engine)
        handles = [engine.submit("toy", request("9 1", "2"))]
        stuck.wait_entered()
        del model.gates[9]
        handles.append(engine.submit("toy", request("9 1", "3")))
        watch.wait_for(0)
        for handle, items in zip(handles, (["9 1", "2"], ["9 1", "3"]), strict=True):
            check(handle.result(PATIENCE_S), items)
        assert engine.ready()
        completed = engine.status()["toy"].completed
        closed = threading.Event()
        old = model.loaded[0]
        close = old.close
        old.close = lambda: (close(), closed.set())  # type: ignore[method-assign,func-returns-value,assignment]
        assert not old.closed
        stuck.open()  # the late result is ignored, and the thread frees its runtime itself
        assert closed.wait(PATIENCE_S)
        check(engine.submit("toy", request("5")).result(PATIENCE_S), ["5"])
        status = engine.status()["toy"]
        assert status.completed == completed + 1 == 3
        assert (status.running_sequences, status.waiting_tokens) == (0, 0)


def test_a_sequence_that_is_stuck_twice_fails() -> None:
    model = ToyModel(budget=64)
    model.gates[9] = stuck = Gate()
    with engine_of(model, forward_timeout_s=0.3) as engine:
        bad = engine.submit("toy", request("9"))
        with pytest.raises(Unavailable, match="two replicas"):
            bad.result(PATIENCE_S)
        check(engine.submit("toy", request("1")).result(PATIENCE_S), ["1"])
        stuck.open()


def test_a_stuck_pass_gives_its_turn_on_the_device_to_the_other_models() -> None:
    one, two = ToyModel(), ToyModel()
    one.gates[9] = stuck = Gate()
    with Engine({"one": one, "two": two}, settings(forward_timeout_s=0.5)) as engine:
        bad = engine.submit("one", request("9"))
        stuck.wait_entered()
        check(engine.submit("two", request("1")).result(PATIENCE_S), ["1"])
        bad.cancel()
        stuck.open()


def test_the_other_replicas_go_on_meanwhile() -> None:
    model = ToyModel(budget=64, replicas=2)
    model.dies = {13}
    loading = Gate()
    with engine_of(model) as engine:
        model.loads = lambda replica: loading.pass_through()
        watch = Watch(engine)
        with pytest.raises(Unavailable, match="two replicas"):
            engine.submit("toy", request("13")).result(PATIENCE_S)
        watch.wait_for(0)
        loading.open()
        watch.wait_for(2)
        watch = Watch(engine)
        model.loads = lambda replica: again.pass_through()
        again = Gate()
        model.dies_once = {14}
        dying = engine.submit("toy", request("14"))
        watch.wait_for(1)
        check(dying.result(PATIENCE_S), ["14"])
        check(engine.submit("toy", request("1")).result(PATIENCE_S), ["1"])
        assert engine.status()["toy"].replicas_alive == 1
        again.open()


# Models that do not load again


def test_while_no_replica_can_be_loaded_requests_end_with_unavailable() -> None:
    model = ToyModel()
    model.dies = {13}
    attempts = iter(range(100))
    last_attempt = Gate()

    def loads(replica: int) -> None:
        model.dies = set()
        attempt = next(attempts)
        if attempt == 3:
            last_attempt.pass_through()
        elif attempt == 1:
            raise SystemExit("device is gone")
        else:
            raise RuntimeError("device is gone")

    with engine_of(model) as engine:
        watch = Watch(engine)
        model.loads = lambda replica: loads(replica) if replica == 0 and next(iter(model.loaded)) else None
        handles = [engine.submit("toy", request(item)) for item in ("13", "1", "2")]
        for handle in handles:
            error = handle.exception(PATIENCE_S)
            if error is not None:
                assert isinstance(error, Unavailable)
                assert "gone" not in error.message
        assert isinstance(handles[0].exception(0), Unavailable)
        last_attempt.wait_entered()
        with pytest.raises(Unavailable, match="no replica"):
            engine.submit("toy", request("1"))
        assert not engine.ready()
        last_attempt.open()
        watch.wait_for(1)
        check(engine.submit("toy", request("13")).result(PATIENCE_S), ["13"])
        assert engine.ready()


def test_a_deadline_while_no_replica_lives_is_unavailable() -> None:
    model = ToyModel()
    model.dies = {13}
    loading = Gate()
    with engine_of(model) as engine:
        model.loads = lambda replica: loading.pass_through()
        late = engine.submit("toy", request("13"))
        loading.wait_entered()
        later = engine.submit("toy", request("1", deadline_s=0.02))
        with pytest.raises(Unavailable, match="no live replica"):
            later.result(PATIENCE_S)
        model.dies = set()
        loading.open()
        check(late.result(PATIENCE_S), ["13"])


def test_closing_while_a_replica_is_being_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lemni.engine.replicas.CLOSE_TIMEOUT_S", 0.01)
    model = ToyModel()
    model.dies = {13}
    loading = Gate()
    engine = engine_of(model)
    engine.start()
    model.loads = lambda replica: loading.pass_through()
    handle = engine.submit("toy", request("13"))
    loading.wait_entered()
    engine.close()
    with pytest.raises(Unavailable, match="closing"):
        handle.result(0)
    (reloading,) = [thread for thread in threading.enumerate() if thread.name.startswith("lemni-reload")]
    loading.open()
    reloading.join(PATIENCE_S)
    assert engine._models["toy"].replicas._replicas[0].join(PATIENCE_S)
    assert [runtime.closed for runtime in model.loaded] == [True, True]


def test_a_busy_replica_does_not_hold_up_deadlines_of_others() -> None:
    model = ToyModel()
    model.gates[9] = gate = Gate()
    with engine_of(model) as engine:
        running = engine.submit("toy", request("9"))
        gate.wait_entered()
        late = [engine.submit("toy", request(f"{n}", deadline_s=0.01 * n)) for n in range(1, 6)]
        for handle in late:
            with pytest.raises(DeadlineExceeded):
                handle.result(PATIENCE_S)
        gate.open()
        check(running.result(PATIENCE_S), ["9"])
