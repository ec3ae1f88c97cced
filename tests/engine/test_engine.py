"""What callers see of the engine: results, order, options, refusals, life cycle."""

from __future__ import annotations

from tests.engine.toy import PATIENCE_S, ToyModel, check, engine_of, request


def test_vectors_come_back_in_the_order_of_the_items() -> None:
    items = ["5 5 5 5", "1", "9 8", "7 " * 40, "2 3 4", [6, 6], "1 2"]
    with engine_of(ToyModel()) as engine:
        check(engine.submit("toy", request(*items)).result(PATIENCE_S), items)


def test_a_request_of_thousands_and_a_small_one() -> None:
    items = [" ".join(str(n % 50) for n in range(start, start + 1 + start % 13)) for start in range(3000)]
    with engine_of(ToyModel(budget=64, replicas=2)) as engine:
        large = engine.submit("toy", request(*items, priority="bulk"))
        check(engine.submit("toy", request("1 2")).result(PATIENCE_S), ["1 2"])
        check(large.result(PATIENCE_S), items)
