"""`Computer`: the vectors of sentence-transformers, the same bits every time, and one bad item among good ones."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from lemni.bulk.plan import Model
from lemni.bulk.windows import Computer
from lemni.config import EngineSettings
from lemni.errors import InputTooLong, InternalError, InvalidOutput
from lemni.hub import ModelFiles
from lemni.types import Options, PackedBatch, Request

TEXTS = [f"{'a word ' * (number % 23)}number {number}" for number in range(150)]


@pytest.fixture(scope="module")
def computer(minilm: ModelFiles) -> Iterator[Computer]:
    how = Model.named(str(minilm.path))
    with contextlib.closing(how.load()) as loaded, contextlib.closing(Computer(loaded, how.engine)) as computer:
        yield computer


@pytest.mark.torch
def test_vectors_are_those_of_sentence_transformers(computer: Computer, minilm: ModelFiles) -> None:
    reference = pytest.importorskip("sentence_transformers").SentenceTransformer(str(minilm.path), device="cpu")
    passes: list[tuple[int, int]] = []
    computed = computer.compute(computer.tokenize(TEXTS, Request([])), lambda *one: passes.append(one))
    np.testing.assert_allclose(computed.result.vectors, reference.encode(TEXTS), atol=2e-6)
    assert computed.places == list(range(len(TEXTS)))
    assert computed.errors == {}
    assert sum(sequences for sequences, _ in passes) == len(TEXTS)
    assert sum(tokens for _, tokens in passes) == computed.result.token_counts.sum()


def test_the_bits_are_the_same_every_time(computer: Computer, minilm: ModelFiles) -> None:
    first = computer.compute(computer.tokenize(TEXTS, Request([]))).result.vectors
    for _ in range(3):
        again = computer.compute(computer.tokenize(TEXTS, Request([]))).result.vectors
        np.testing.assert_array_equal(again, first)
    how = Model.named(str(minilm.path))
    how = dataclasses.replace(how, engine=EngineSettings.model_validate({"tokenizer_threads": 1}))
    with contextlib.closing(how.load()) as loaded, contextlib.closing(Computer(loaded, how.engine)) as other:
        np.testing.assert_array_equal(other.compute(other.tokenize(TEXTS, Request([]))).result.vectors, first)


def test_equal_texts_are_computed_once(computer: Computer) -> None:
    passed = []
    texts = ["one", "two", "one"] * 50
    computed = computer.compute(computer.tokenize(texts, Request([])), lambda count, tokens: passed.append(count))
    assert sum(passed) == 2
    np.testing.assert_array_equal(computed.result.vectors[0], computed.result.vectors[2])
    assert computed.result.token_counts.tolist() == [3, 3, 3] * 50


def test_a_text_that_is_too_long_is_an_error_of_its_own(computer: Computer) -> None:
    texts = [*TEXTS[:70], "long " * 600, *TEXTS[70:]]
    request = Request([], Options(truncate="error"))
    computed = computer.compute(computer.tokenize(texts, request))
    assert list(computed.errors) == [70]
    assert isinstance(computed.errors[70], InputTooLong)
    assert computed.places == [*range(70), *range(71, 151)]
    plain = computer.compute(computer.tokenize(TEXTS, request)).result.vectors
    np.testing.assert_allclose(computed.result.vectors, plain, atol=2e-6)


class Poisoned:
    """The real runtime, which fails or computes NaN where one token is aboard."""

    def __init__(self, inner: object, token: int, nan: bool, broken: bool = False) -> None:
        self._inner, self._token, self._nan, self._broken = inner, token, nan, broken

    def run(self, batch: PackedBatch) -> list[object]:
        bad = self._broken or self._token in batch.ids
        if bad and not self._nan:
            raise RuntimeError("a kernel failed")
        rows = self._inner.run(batch)  # type: ignore[attr-defined]
        if bad:
            rows = [{name: np.full_like(value, np.nan) for name, value in row.items()} for row in rows]
        return rows  # type: ignore[no-any-return]

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("nan", "kind"), [(True, InvalidOutput), (False, InternalError)])
def test_what_cannot_be_computed_is_found(
    computer: Computer, nan: bool, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    window = computer.tokenize([*TEXTS[:40], "xylophone", *TEXTS[40:]], Request([]))
    guilty = window.sequences[40]
    assert isinstance(guilty, list)
    token = int(guilty[0].ids[1])
    monkeypatch.setattr(computer, "_free", [Poisoned(computer._runtimes[0], token, nan)])
    computed = computer.compute(window)
    assert list(computed.errors) == [40]
    assert isinstance(computed.errors[40], kind)
    monkeypatch.setattr(computer, "_free", [computer._runtimes[0]])
    plain = computer.compute(computer.tokenize(TEXTS, Request([])))
    np.testing.assert_allclose(computed.result.vectors, plain.result.vectors, atol=2e-6)


def test_a_model_that_computes_nothing_is_no_reason_to_reject_everything(
    computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(computer, "_free", [Poisoned(computer._runtimes[0], -1, nan=False, broken=True)])
    with pytest.raises(InternalError, match="computes nothing any more"):
        computer.compute(computer.tokenize(TEXTS[:3], Request([])))


def test_several_replicas_give_the_same(minilm: ModelFiles, computer: Computer) -> None:
    engine = EngineSettings.model_validate({"replicas": 2, "threads": 2})
    how = dataclasses.replace(Model.named(str(minilm.path)), engine=engine)
    plain = computer.compute(computer.tokenize(TEXTS, Request([]))).result.vectors
    with contextlib.closing(how.load()) as loaded, contextlib.closing(Computer(loaded, engine)) as two:
        assert two.replicas == 2
        np.testing.assert_allclose(two.compute(two.tokenize(TEXTS, Request([]))).result.vectors, plain, atol=2e-6)
