"""Answers with a vector per token are bounded, alone and together; others are not counted."""

from __future__ import annotations

import pytest

from lemni.errors import InvalidRequest, Overloaded
from tests.engine.toy import DIM, Gate, ToyModel, engine_of, request

TOKENS = 100
MIB = 4 * DIM * TOKENS / 2**20  # the vectors of so many tokens


def texts(tokens: int) -> str:
    return " ".join(["1"] * tokens)


def test_one_request() -> None:
    with engine_of(ToyModel(budget=1000), max_result_mib=MIB) as engine:
        assert engine.submit("toy", request(texts(TOKENS), tasks=("tokens",))).result().multi_vectors
        with pytest.raises(InvalidRequest, match="max_result_mib"):
            engine.submit("toy", request(texts(TOKENS), "1 2 3", tasks=("tokens",)))
        assert len(engine.submit("toy", request(*[texts(TOKENS)] * 3)).result().vectors) == 3


def test_several_requests() -> None:
    model = ToyModel(budget=1000)
    model.gates[999] = gate = Gate()
    with engine_of(model, max_result_mib=MIB) as engine:
        first = engine.submit("toy", request("999 " + texts(60), tasks=("tokens",)))
        gate.wait_entered()
        with pytest.raises(Overloaded, match="retry"):
            engine.submit("toy", request(texts(60), tasks=("tokens",)))
        small = engine.submit("toy", request(texts(60)))
        gate.open()
        first.result()
        small.result()
        assert engine.submit("toy", request(texts(60), tasks=("tokens",))).result().multi_vectors
