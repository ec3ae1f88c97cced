"""Items that become several sequences, sequences that ask for nothing, and outputs by name."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import time
import weakref
from collections.abc import Sequence as Seq

import numpy as np
import pytest

from lemni.errors import InternalError, InvalidOutput, InvalidRequest, LemniError
from lemni.types import Features, Item, Request, Result, Row, Sequence, Task
from tests.engine.toy import PATIENCE_S, Gate, ToyModel, check, engine_of, plugged, request


def test_an_item_of_several_sequences_is_complete_when_all_are() -> None:
    items: list[Item] = ["1 2 | 3", "4", "5 5 5 | 6 | 7 7", "3 | 1 2"]
    model = ToyModel(budget=4)  # the sequences of one item run in different batches
    with engine_of(model) as engine:
        check(engine.submit("toy", request(*items)).result(PATIENCE_S), items)
        assert engine.status()["toy"].items == 4
    assert max(map(sum, model.batches)) <= 4


def test_sequences_of_one_item_share_work_with_those_of_others() -> None:
    model = ToyModel(budget=64)
    with engine_of(model) as engine, plugged(model, engine):
        handles = [engine.submit("toy", request(*items)) for items in (["1 2 | 1 2"], ["1 2", "9 | 1 2"], ["9"])]
    check(handles[0].result(0), ["1 2 | 1 2"])
    check(handles[1].result(0), ["1 2", "9 | 1 2"])
    check(handles[2].result(0), ["9"])
    assert model.computed.count((1, 2)) == model.computed.count((9,)) == 1


def test_truncated_parts_name_their_item_once() -> None:
    with engine_of(ToyModel()) as engine:
        handle = engine.submit("toy", request("1", "1 77 | 2 77", "3 | 4 77"))
        assert handle.result(PATIENCE_S).truncated == (1, 2)
        assert engine.status()["toy"].truncated == 2


@pytest.mark.parametrize("items", [["~1 2"], ["~1", "~2 2", "~1"], ["~1 | ~2"], ["~1"] * 300])
def test_a_request_that_needs_no_forward_pass(items: list[Item]) -> None:
    model = ToyModel()
    with engine_of(model) as engine:
        check(engine.submit("toy", request(*items)).result(PATIENCE_S), items)
        check(asyncio.run(engine.embed("toy", request(*items))), items)
        status = engine.status()["toy"]
        assert engine._models["toy"].served.drain(PATIENCE_S)
    assert model.batches == []
    assert (status.completed, status.waiting_tokens, status.waiting_sequences) == (2, 0, 0)


@pytest.mark.parametrize(
    "items",
    [["1 2", "~3"], ["~3", "1 2"], ["~3 | 1 2"], ["1 2 | ~3 | 4", "~5"], ["7", *["~1"] * 200], [*["~1"] * 200, "7"]],
)
def test_computed_and_uncomputed_sequences_in_one_request(items: list[Item]) -> None:
    model = ToyModel(budget=8)
    with engine_of(model, tokenizer_threads=2) as engine:
        check(engine.submit("toy", request(*items)).result(PATIENCE_S), items)
    assert not {(3,), (5,), (1,)} & set(model.computed)


def test_what_is_not_computed_is_not_held_up_by_a_busy_replica() -> None:
    model = ToyModel()
    with engine_of(model) as engine, plugged(model, engine):
        check(engine.submit("toy", request("~1", "~2 2")).result(PATIENCE_S), ["~1", "~2 2"])


def test_a_batch_gives_the_outputs_of_all_its_sequences_and_no_others() -> None:
    model = ToyModel(budget=64)
    with engine_of(model) as engine:
        with plugged(model, engine):
            dense = engine.submit("toy", request("1 2", "5"))
            both = engine.submit("toy", request("1 2", tasks=("embed", "tokens")))
            tokens = engine.submit("toy", request("3 | ~8 | 4 4", "1 2", tasks=("tokens",)))
        assert model.wanted == [{"dense"}, {"dense", "tokens"}]
        engine.submit("toy", request("1 2", tasks=("tokens",))).result(PATIENCE_S)
        assert model.wanted[2:] == [{"tokens"}]
    check(dense.result(0), ["1 2", "5"])
    assert dense.result(0).multi_vectors == ()
    check(both.result(0), ["1 2"])
    np.testing.assert_array_equal(both.result(0).multi_vectors[0], [[1, 1], [2, 4]])
    first, second = tokens.result(0).multi_vectors
    np.testing.assert_array_equal(first, [[3, 9], [4, 16], [4, 16]])
    np.testing.assert_array_equal(second, [[1, 1], [2, 4]])
    assert tokens.result(0).vectors.shape == (0, 0)
    np.testing.assert_array_equal(tokens.result(0).token_counts, [4, 2])


@pytest.mark.parametrize("tasks", [("embed",), ("tokens",), ("embed", "tokens")])
@pytest.mark.parametrize(("fault", "kind"), [("nans", InvalidOutput), ("raises", InternalError)])
def test_a_bad_sequence_fails_its_item_alone(tasks: tuple[Task, ...], fault: str, kind: type[Exception]) -> None:
    model = ToyModel(budget=64)
    setattr(model, fault, {13})
    with engine_of(model) as engine, plugged(model, engine):
        bad = engine.submit("toy", request("1", "2 | 13 | 3", tasks=tasks, first_item=10))
        good = engine.submit("toy", request("2", "3"))
    with pytest.raises(kind) as caught:
        bad.result(0)
    assert (caught.value.item, caught.value.param) == (11, "input[11]")  # type: ignore[attr-defined]
    check(good.result(0), ["2", "3"])


def test_a_sequence_without_tokens_fails_its_item_even_if_nothing_is_computed_of_it() -> None:
    with engine_of(ToyModel()) as engine:
        with pytest.raises(InternalError) as caught:
            engine.submit("toy", request("1", "2 | ~")).result(PATIENCE_S)
        assert caught.value.item == 1


def test_errors_use_the_callers_name_for_its_items() -> None:
    def refused_by_estimate(item: Item) -> int:
        if item == "13":
            raise InvalidRequest("unlucky")
        return 1

    model = ToyModel()
    model.estimate = refused_by_estimate
    with engine_of(model) as engine:
        for item, when in (("refused", "tokenised"), ("13", "estimated")):
            with pytest.raises(InvalidRequest) as caught:
                engine.submit("toy", request("1", item, field="texts", first_item=4)).result(PATIENCE_S)
            assert (caught.value.item, caught.value.param) == (5, "texts[5]"), when
            with pytest.raises(InvalidRequest) as caught:
                engine.submit("toy", request(item, field="query", lone=True)).result(PATIENCE_S)
            assert (caught.value.item, caught.value.param) == (0, "query"), when
        with pytest.raises(InvalidRequest, match="texts is empty"):
            engine.submit("toy", Request((), field="texts"))
        assert engine.status()["toy"].errors == {"invalid_request": 5}


class Pictures(ToyModel):
    """Every sequence has an array, which is remembered weakly."""

    def __init__(self) -> None:
        super().__init__(budget=1)
        self.arrays: list[weakref.ref[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]] = []

    def tokenize(self, request: Request, start: int, stop: int) -> list[list[Sequence] | LemniError]:
        return [
            one if isinstance(one, LemniError) else list(map(self._pictured, one))
            for one in super().tokenize(request, start, stop)
        ]

    def _pictured(self, sequence: Sequence) -> Sequence:
        array = np.zeros(8, np.float32)
        self.arrays.append(weakref.ref(array))
        return dataclasses.replace(sequence, features=Features({"pixels": array}, sequence.ids.tobytes()))

    def finish(self, items: Seq[Seq[Row]], request: Request) -> Result:
        assert all(row.sequence.features is None for rows in items for row in rows)
        return super().finish(items, request)


def test_pictures_are_let_go_as_soon_as_they_are_computed() -> None:
    model = Pictures()
    model.gates[9] = gate = Gate()
    items: list[Item] = ["1", "2", "3", "9"]
    with engine_of(model) as engine:
        handle = engine.submit("toy", request(*items))
        gate.wait_entered()  # the last one; the others have been computed, of equal length and in their order
        while engine.status()["toy"].running_sequences > 1:
            time.sleep(0.001)
        gc.collect()
        alive = [array() is not None for array in model.arrays]
        gate.open()
        check(handle.result(PATIENCE_S), items)
    assert alive == [False, False, False, True]
