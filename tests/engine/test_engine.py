"""What callers see of the engine: results, order, options, refusals, deadlines, cancellation, life cycle."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Sequence as Seq
from concurrent.futures import CancelledError, wait

import numpy as np
import pytest

from lemni.engine import Engine, Model
from lemni.engine.job import Job
from lemni.engine.tokenizing import CHUNK_CHARACTERS
from lemni.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ModelLoadError,
    Overloaded,
    Unavailable,
    UnknownModel,
)
from lemni.types import Item, Options
from tests.engine.toy import PATIENCE_S, Gate, ToyModel, check, engine_of, plugged, request, settings


def test_the_toy_is_a_model() -> None:
    model: Model = ToyModel()
    assert model.card.name == "toy"


def test_vectors_come_back_in_the_order_of_the_items() -> None:
    items: list[Item] = ["5 5 5 5", "1", "9 8", "7 " * 40, "2 3 4", [6, 6], "1 2"]
    with engine_of(ToyModel()) as engine:
        check(engine.submit("toy", request(*items)).result(PATIENCE_S), items)


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_request_of_thousands_and_a_small_one(replicas: int) -> None:
    items = [" ".join(str(n % 50) for n in range(start, start + 1 + start % 13)) for start in range(3000)]
    with engine_of(ToyModel(budget=64, replicas=replicas), tokenizer_threads=3) as engine:
        large = engine.submit("toy", request(*items, priority="bulk"))
        check(engine.submit("toy", request("1 2")).result(PATIENCE_S), ["1 2"])
        check(large.result(PATIENCE_S), items)
        status = engine.status()["toy"]
    assert (status.replicas_alive, status.replicas_total) == (replicas, replicas)
    assert (status.requests, status.completed, status.items) == (2, 2, 3001)
    assert status.tokens == 2 + sum(1 + start % 13 for start in range(3000))
    assert status.batches == sum(status.batch_sizes.values())
    assert max(status.batch_sizes) <= 64


def test_options_reach_finishing_and_do_not_mix_in_shared_work() -> None:
    model, raw = ToyModel(), Options(normalize=False, dimensions=2)
    with engine_of(model) as engine, plugged(model, engine):
        both = [engine.submit("toy", request("1 2 3", options=o)) for o in (Options(), raw)]
    check(both[0].result(0), ["1 2 3"])
    check(both[1].result(0), ["1 2 3"], raw)
    assert model.computed.count((1, 2, 3)) == 1


def test_truncated_items_are_named() -> None:
    with engine_of(ToyModel()) as engine:
        handle = engine.submit("toy", request("1 77", "1", "2 77"))
        assert handle.result(PATIENCE_S).truncated == (0, 2)
        assert engine.status()["toy"].truncated == 2


def test_batches_keep_the_models_budget_and_the_settings_win() -> None:
    for changes, budget in (({}, 16), ({"max_batch_tokens": 10}, 10)):
        model = ToyModel(budget=16)
        with engine_of(model, **changes) as engine:
            items = [f"{n} 1 2 3" for n in range(100)] + ["1 " * 30]
            check(engine.submit("toy", request(*items)).result(PATIENCE_S), items)
        assert all(sum(lengths) <= budget or len(lengths) == 1 for lengths in model.batches)
        assert any(sum(lengths) > budget - 4 for lengths in model.batches)


# One computation for equal sequences


def test_identical_items_in_flight_are_computed_once() -> None:
    model = ToyModel(budget=64)
    model.gates[9] = gate = Gate()
    with engine_of(model) as engine:
        first = engine.submit("toy", request("9 1", "2"))
        gate.wait_entered()  # "9 1" runs, and perhaps "2"
        same = [engine.submit("toy", request("9 1", "9 1", "3")) for _ in range(3)]
        other = engine.submit("toy", request("3", priority="bulk"))
        gate.open()
        check(first.result(PATIENCE_S), ["9 1", "2"])
        for handle in same:
            check(handle.result(PATIENCE_S), ["9 1", "9 1", "3"])
        check(other.result(PATIENCE_S), ["3"])
        status = engine.status()["toy"]
    assert model.computed.count((9, 1)) < 5
    assert status.deduplicated >= 3


def test_waiting_and_running_sequences_can_be_joined() -> None:
    model = ToyModel(budget=64)
    with engine_of(model) as engine, plugged(model, engine):
        waiting = [engine.submit("toy", request("3 4", "3 4")) for _ in range(3)]
        running = engine.submit("toy", request("999 999"))  # what the plug computes
    for handle in waiting:
        check(handle.result(0), ["3 4", "3 4"])
    check(running.result(0), ["999 999"])
    assert model.computed.count((3, 4)) == model.computed.count((999, 999)) == 1
    assert engine.status()["toy"].deduplicated == 6


def test_a_shared_sequence_outlives_one_of_its_requests() -> None:
    model = ToyModel()
    with engine_of(model) as engine, plugged(model, engine):
        given_up, kept = (engine.submit("toy", request("3 4")) for _ in range(2))
        given_up.cancel()
    check(kept.result(0), ["3 4"])


# Fairness


def test_a_query_passes_a_large_request() -> None:
    model = ToyModel(budget=16)
    with engine_of(model) as engine, plugged(model, engine):
        large = engine.submit("toy", request(*[f"{n} 1 2 3 4 5 6 7" for n in range(500)]))
        query = engine.submit("toy", request("4 4"))
    check(query.result(0), ["4 4"])
    assert large.result(0).vectors.shape == (500, 4)
    assert model.computed.index((4, 4)) <= 3


def test_the_tokenizers_serve_a_query_between_chunks_of_a_large_request() -> None:
    model = ToyModel()
    gate, order = Gate(), []

    def tokenizes(items: Seq[Item], offset: int) -> None:
        order.append(len(items))
        if len(order) == 1:
            gate.pass_through()

    model.tokenizes = tokenizes
    with engine_of(model, tokenizer_threads=1) as engine:
        large = engine.submit("toy", request(*[str(n) for n in range(1000)], priority="bulk"))
        gate.wait_entered()
        query = engine.submit("toy", request("4 4"))
        gate.open()
        check(query.result(PATIENCE_S), ["4 4"])
        large.result(PATIENCE_S)
    assert order[:2] == [64, 1]
    assert sum(order) == 1001


def test_chunks_end_by_characters_and_a_long_text_is_a_chunk_of_its_own() -> None:
    model = ToyModel()
    model.estimate = lambda item: 1  # what is cut off later is not computed, but it is tokenised
    chunks: list[list[int]] = []
    model.tokenizes = lambda items, offset: chunks.append([len(item) for item in items])
    long, whole = "1 " * 10_000, "2 " * CHUNK_CHARACTERS
    with engine_of(model, tokenizer_threads=1) as engine:
        engine.submit("toy", request(*["1"] * 10, whole, *["1"] * 10, *[long] * 7)).result(PATIENCE_S)
        assert chunks == [[1] * 10, [2 * CHUNK_CHARACTERS], [1] * 10 + [20_000] * 3, [20_000] * 3, [20_000]]
        chunks.clear()
        prompted = Options(prompt="1" * (CHUNK_CHARACTERS // 4))
        engine.submit("toy", request(*["1"] * 7, options=prompted)).result(PATIENCE_S)
        assert [len(chunk) for chunk in chunks] == [3, 3, 1]


def test_the_tokenizers_price_a_text_by_its_length() -> None:
    """Two requests of long texts and one of short ones: the short one is not held up by more than a chunk of each."""
    model = ToyModel()
    model.estimate = lambda item: 1
    gate, order = Gate(), []

    def tokenizes(items: Seq[Item], offset: int) -> None:
        order.append(len(items[0]))
        if len(order) == 1:
            gate.pass_through()

    model.tokenizes = tokenizes
    with engine_of(model, tokenizer_threads=1) as engine:
        large = [engine.submit("toy", request(*["1 " * 40_000] * 4)) for _ in range(2)]
        gate.wait_entered()
        short = engine.submit("toy", request(*["1 1"] * 640))
        gate.open()
        for handle in (*large, short):
            handle.result(PATIENCE_S)
    assert order[1:11] == [3] * 10, "ten chunks of short texts cost less than one long text"


def test_a_request_whose_caller_went_away_is_not_tokenised_further() -> None:
    model, gate = ToyModel(), Gate()
    seen: list[Item] = []

    def tokenizes(items: Seq[Item], offset: int) -> None:
        seen.extend(items)
        gate.pass_through()

    model.tokenizes = tokenizes
    with engine_of(model, tokenizer_threads=1) as engine:
        given_up = engine.submit("toy", request(*["1"] * 1000))
        gate.wait_entered()
        given_up.cancel()
        gate.open()
        check(engine.submit("toy", request("2")).result(PATIENCE_S), ["2"])
        assert engine.drain(PATIENCE_S)
    assert seen == ["1"] * 64 + ["2"]


def test_one_large_request_keeps_all_tokenizer_threads_busy() -> None:
    model, gate = ToyModel(), Gate()
    threads: set[int] = set()

    def tokenizes(items: Seq[Item], offset: int) -> None:
        threads.add(threading.get_ident())
        gate.pass_through()

    model.tokenizes = tokenizes
    items = [str(n) for n in range(200)]
    with engine_of(model, tokenizer_threads=2) as engine:
        handle = engine.submit("toy", request(*items))
        gate.wait_entered()
        gate.wait_entered()
        assert len(threads) == 2
        gate.open()
        check(handle.result(PATIENCE_S), items)


# Refusals


def test_no_items() -> None:
    with engine_of(ToyModel()) as engine, pytest.raises(InvalidRequest, match="input is empty") as caught:
        engine.submit("toy", request())
    assert caught.value.param == "input"


def test_an_unknown_model_names_the_served_ones() -> None:
    with Engine({"one": ToyModel(), "two": ToyModel()}, settings()) as engine:
        with pytest.raises(UnknownModel, match=r"'three' .* one, two"):
            engine.submit("three", request("1"))
        assert [card.name for card in engine.cards()] == ["toy", "toy"]


def test_options_that_the_model_refuses() -> None:
    with engine_of(ToyModel()) as engine:
        with pytest.raises(InvalidRequest, match="unknown prompt") as caught:
            engine.submit("toy", request("1", options=Options(prompt_name="x")))
        assert (caught.value.item, caught.value.param) == (None, "prompt_name")
        assert engine.status()["toy"].errors == {"invalid_request": 1}


def test_a_full_queue_is_refused_with_a_hint_and_opens_again() -> None:
    model = ToyModel()
    with engine_of(model, max_queue_tokens=50) as engine:
        engine.submit("toy", request("1")).result(PATIENCE_S)  # something measured
        with plugged(model, engine):
            waiting = engine.submit("toy", request("1 2 3 4 5 " * 9))
            with pytest.raises(Overloaded, match="45 of 50 tokens") as caught:
                engine.submit("toy", request("1 2 3 4 5 6"))
            assert caught.value.retry_after_s is not None
            assert 0 < caught.value.retry_after_s <= 60
            fits = engine.submit("toy", request("1 2 3 4 5"))
        assert waiting.done()
        assert fits.done()
        check(engine.submit("toy", request("1 2 3 4 5 6")).result(PATIENCE_S), ["1 2 3 4 5 6"])
        assert engine.status()["toy"].waiting_tokens == 0


def test_tokens_that_run_do_not_count_as_waiting() -> None:
    model = ToyModel()
    with engine_of(model, max_queue_tokens=20) as engine, plugged(model, engine):
        assert engine.status()["toy"].waiting_tokens == 0
        assert engine.status()["toy"].running_sequences == 1
        fits = engine.submit("toy", request("1 " * 20))
    assert fits.done()


def test_a_request_over_the_whole_bound_is_told_to_split() -> None:
    too_big = pytest.raises(InvalidRequest, match=r"about 60 tokens.* takes 50 \(max_queue_tokens\)")
    with engine_of(ToyModel(), max_queue_tokens=50) as engine, too_big:
        engine.submit("toy", request("1 " * 30, "2 " * 30))


def test_the_prompt_counts_for_admission() -> None:
    prompted = Options(prompt="1 " * 10)
    with engine_of(ToyModel(), max_queue_tokens=50) as engine:
        with pytest.raises(InvalidRequest, match="about 55 tokens"):
            engine.submit("toy", request(*["1"] * 5, options=prompted))
        engine.submit("toy", request(*["1"] * 4, options=prompted)).result(PATIENCE_S)


def test_estimates_are_corrected_by_the_true_counts() -> None:
    model = ToyModel()
    model.estimate = lambda item: 40
    with engine_of(model, max_queue_tokens=50) as engine, plugged(model, engine) as settle:
        first = engine.submit("toy", request("1 2 3"))
        settle()
        assert engine.status()["toy"].waiting_tokens == 3
        second = engine.submit("toy", request("4 5 6"))
    check(first.result(0), ["1 2 3"])
    check(second.result(0), ["4 5 6"])


# Deadlines


def test_a_deadline_ends_a_waiting_request_though_the_replica_is_busy() -> None:
    model = ToyModel()
    with engine_of(model) as engine, plugged(model, engine) as settle:
        late = engine.submit("toy", request("1 2", deadline_s=0.02))
        settle()
        with pytest.raises(DeadlineExceeded, match=r"0\.02 s"):
            late.result(PATIENCE_S)
        assert engine.status()["toy"].waiting_tokens == 0
    assert (1, 2) not in model.computed


def test_a_deadline_ends_a_running_request() -> None:
    model = ToyModel()
    model.gates[9] = gate = Gate()
    with engine_of(model, request_timeout_s=0.02) as engine:
        with pytest.raises(DeadlineExceeded):
            engine.submit("toy", request("9")).result(PATIENCE_S)
        gate.open()
        check(engine.submit("toy", request("1", deadline_s=PATIENCE_S)).result(PATIENCE_S), ["1"])


def test_a_deadline_ends_a_request_that_is_being_tokenised() -> None:
    model, gate = ToyModel(), Gate()
    tokenized: list[Item] = []

    def tokenizes(items: Seq[Item], offset: int) -> None:
        tokenized.extend(items)
        gate.pass_through()

    model.tokenizes = tokenizes
    with engine_of(model, tokenizer_threads=1) as engine:
        late = [engine.submit("toy", request(item, "7", deadline_s=0.02)) for item in "89"]
        for handle in late:
            with pytest.raises(DeadlineExceeded):
                handle.result(PATIENCE_S)
        assert engine.status()["toy"].waiting_tokens == 0
        gate.open()
        check(engine.submit("toy", request("1", deadline_s=PATIENCE_S)).result(PATIENCE_S), ["1"])
        assert engine.status()["toy"].waiting_tokens == 0
    assert "9" not in tokenized
    assert model.computed == [(1,)]


def test_who_ends_a_request_first_ends_it() -> None:
    model = ToyModel()
    with engine_of(model) as engine, plugged(model, engine):
        handle = engine.submit("toy", request("1"))
        served = engine._models["toy"].served
        (job,) = [job for job in served._jobs.values() if job.handle is handle]
        served.end(job, Overloaded("first"))
        served.end(job, Overloaded("second"))
        assert str(handle.exception(0)) == "first"
        assert not handle.cancel()
        assert engine.status()["toy"].failed == 1


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, float("nan")])
def test_a_deadline_that_has_passed(deadline_s: float) -> None:
    with engine_of(ToyModel()) as engine, pytest.raises(DeadlineExceeded):
        engine.submit("toy", request("1", deadline_s=deadline_s))


# Cancellation


def test_cancelling_frees_the_place_of_what_waits() -> None:
    model = ToyModel()
    with engine_of(model) as engine, plugged(model, engine) as settle:
        handle = engine.submit("toy", request("1 2", "3 4"))
        settle()
        assert engine.status()["toy"].waiting_tokens == 4
        assert handle.cancel()
        assert handle.cancel()
        assert engine.status()["toy"].waiting_tokens == 0
        with pytest.raises(CancelledError):
            handle.result(0)
        assert wait([handle], timeout=0).done == {handle}
    assert (1, 2) not in model.computed
    assert engine.status()["toy"].cancelled == 1


def test_cancelling_what_runs_or_is_done() -> None:
    model = ToyModel()
    model.gates[9] = gate = Gate()
    with engine_of(model) as engine:
        running = engine.submit("toy", request("9"))
        gate.wait_entered()
        assert running.cancel()
        gate.open()
        done = engine.submit("toy", request("1"))
        check(done.result(PATIENCE_S), ["1"])
        assert not done.cancel()
        assert engine.drain(PATIENCE_S)
    assert engine.status()["toy"].running_sequences == 0


async def test_embed_and_many_at_once() -> None:
    with engine_of(ToyModel(replicas=2)) as engine:
        check(await engine.embed("toy", request("1 2", "3")), ["1 2", "3"])
        results = await asyncio.gather(*(engine.embed("toy", request(f"{n} 1")) for n in range(200)))
        for n, result in enumerate(results):
            check(result, [f"{n} 1"])
        with pytest.raises(InvalidRequest, match="refused") as caught:
            await engine.embed("toy", request("1", "refused"))
        assert caught.value.item == 1


async def test_cancelling_the_task_cancels_the_queued_request() -> None:
    model = ToyModel()
    model.gates[999] = gate = Gate()
    with engine_of(model) as engine:
        plug = engine.submit("toy", request("999 999"))
        gate.wait_entered()
        cancelled = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(engine.embed("toy", request("1 2")))
        await asyncio.sleep(0)  # lets the task submit
        (job,) = [job for job in engine._models["toy"].served._jobs.values() if job.handle is not plug]
        loop = asyncio.get_running_loop()
        job.handle.add_done_callback(lambda handle: loop.call_soon_threadsafe(cancelled.set_result, handle.cancelled()))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await cancelled
        gate.open()
        assert engine.drain(PATIENCE_S)
    assert (1, 2) not in model.computed


def test_callbacks_may_call_back_and_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    model = ToyModel()
    with engine_of(model) as engine:
        again: list[object] = []
        submitted = threading.Event()

        def callback(handle: object) -> None:
            again.append(engine.submit("toy", request("5 5")))
            submitted.set()
            raise SystemExit("rude")

        engine.submit("toy", request("1")).add_done_callback(callback)
        assert submitted.wait(PATIENCE_S)
        check(again[0].result(PATIENCE_S), ["5 5"])
        assert engine.drain(PATIENCE_S)


def test_a_kept_handle_does_not_keep_the_request_alive() -> None:
    with engine_of(ToyModel()) as engine:
        handle = engine.submit("toy", request("1"))
        handle.result(PATIENCE_S)
        check(engine.submit("toy", request("2")).result(PATIENCE_S), ["2"])
        assert engine.drain(PATIENCE_S)
    gc.collect()
    assert not any(isinstance(thing, Job) for thing in gc.get_objects())
    assert handle.done()


# Several models


def test_models_on_one_device_take_turns_and_others_do_not() -> None:
    one, two, other = ToyModel(), ToyModel(), ToyModel(device="cuda:0")
    gates = []
    for model in (one, two, other):
        model.gates[9] = Gate()
        gates.append(model.gates[9])
    with Engine({"one": one, "two": two, "other": other}, settings()) as engine:
        first = engine.submit("one", request("9"))
        gates[0].wait_entered()
        second = engine.submit("two", request("9"))
        elsewhere = engine.submit("other", request("9"))
        gates[2].wait_entered()  # another device runs side by side
        late = engine.submit("two", request("1"))
        assert two.batches == []
        gates[0].open()
        gates[1].wait_entered()
        gates[1].open()
        gates[2].open()
        for handle, items in ((first, ["9"]), (second, ["9"]), (elsewhere, ["9"]), (late, ["1"])):
            check(handle.result(PATIENCE_S), items)


def test_replicas_of_one_model_run_side_by_side() -> None:
    model = ToyModel(replicas=2)
    model.gates = {8: Gate(), 9: Gate()}
    with engine_of(model) as engine:
        both = []
        for item in "89":
            both.append(engine.submit("toy", request(item)))
            model.gates[int(item)].wait_entered()
        for gate in model.gates.values():
            gate.open()
        for handle, item in zip(both, ["8", "9"], strict=True):
            check(handle.result(PATIENCE_S), [item])


# Life cycle


def test_start_raises_what_loading_raises_and_frees_the_rest() -> None:
    good, bad = ToyModel(replicas=2), ToyModel(replicas=3)

    def loads(replica: int) -> None:
        if replica == 2:
            raise ModelLoadError("no weights")

    bad.loads = loads
    engine = Engine({"good": good, "bad": bad}, settings())
    before = set(threading.enumerate())
    with pytest.raises(ModelLoadError, match="no weights"):
        engine.start()
    assert len(good.loaded) == len(bad.loaded) == 2
    assert all(runtime.closed for runtime in good.loaded + bad.loaded)
    assert set(threading.enumerate()) <= before
    assert not engine.ready()
    with pytest.raises(Unavailable):
        engine.submit("good", request("1"))
    engine.close()


def test_ready_only_between_start_and_drain() -> None:
    engine = engine_of(ToyModel())
    assert not engine.ready()
    with pytest.raises(Unavailable, match="not started"):
        engine.submit("toy", request("1"))
    engine.start()
    assert engine.ready()
    with pytest.raises(RuntimeError, match="starts once"):
        engine.start()
    assert engine.drain()
    assert not engine.ready()
    engine.close()
    engine.close()
    with pytest.raises(RuntimeError, match="starts once"):
        engine.start()


def test_draining_finishes_what_is_in_flight_and_takes_nothing_new() -> None:
    model = ToyModel()
    model.gates[9] = gate = Gate()
    with engine_of(model) as engine:
        handle = engine.submit("toy", request("9", "1"))
        gate.wait_entered()
        assert not engine.drain(0.01)
        with pytest.raises(Unavailable, match="shutting down"):
            engine.submit("toy", request("2"))
        gate.open()
        assert engine.drain(PATIENCE_S)
        check(handle.result(0), ["9", "1"])


def test_closing_ends_everything_and_frees_the_devices() -> None:
    model = ToyModel(replicas=2)
    model.gates[9] = gate = Gate()
    engine = engine_of(model)
    before = set(threading.enumerate())
    engine.start()
    running = engine.submit("toy", request("9"))
    gate.wait_entered()
    waiting = engine.submit("toy", request(*(["1 2"] * 100)))
    running.add_done_callback(lambda _: gate.open())
    engine.close()
    for handle in (running, waiting):
        if handle.exception(0) is not None:
            with pytest.raises(Unavailable, match="closing"):
                handle.result(0)
    assert isinstance(running.exception(0), Unavailable)
    assert all(runtime.closed for runtime in model.loaded)
    status = engine.status()["toy"]
    assert (status.open_requests, status.waiting_tokens, status.running_sequences) == (0, 0, 0)
    engine._alarm._thread.join(PATIENCE_S)
    assert set(threading.enumerate()) <= before
    with pytest.raises(Unavailable):
        engine.submit("toy", request("1"))


def test_results_are_the_callers_own() -> None:
    with engine_of(ToyModel()) as engine:
        result = engine.submit("toy", request("1 2", "1 2")).result(PATIENCE_S)
    assert result.vectors.flags.c_contiguous
    assert result.token_counts.dtype == np.int32
