"""What output types cost on the real default model: measured with `python -m benchmarks output_types`, held here."""

from __future__ import annotations

from collections.abc import Iterator
from pydoc_data.topics import topics

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

import lemni
from lemni import hub
from lemni.tasks.output_types import OUTPUT_TYPES, OutputType, convert, convert_scaled, restore
from lemni.tasks.ranges import Ranges, RangesKey, calibrate
from tests.shared import STSB, stsb

PAIRS = 500
UNSEEN = [" ".join(text.split()[:40]) for text in list(topics.values())[:60]]

# Largest 1 - cosine of a vector, and largest change of Spearman: about twice what is measured.
COST: dict[OutputType, tuple[float, float]] = {
    "float32": (1e-6, 0),
    "float16": (1e-6, 1e-4),
    "bfloat16": (1e-5, 1e-4),
    "int8": (4e-4, 5e-4),
    "uint8": (4e-4, 5e-4),
    "binary": (0.3, 0.025),
    "ubinary": (0.3, 0.025),
}


@pytest.fixture(scope="module")
def model(minilm: hub.ModelFiles) -> Iterator[lemni.Embedder]:
    with lemni.load(str(minilm.path), device="cpu") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def ranges(
    model: lemni.Embedder, minilm: hub.ModelFiles, tmp_path_factory: pytest.TempPathFactory
) -> NDArray[np.float32]:
    kept = Ranges(tmp_path_factory.mktemp("cache"))
    key = RangesKey(minilm.id, minilm.revision or "")
    kept.put(key, calibrate(lambda texts: model.embed(texts, normalize=False)))
    got = kept.get(key)
    assert got is not None
    return got


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=-1, keepdims=True))


def test_texts_that_were_not_measured(model: lemni.Embedder, ranges: NDArray[np.float32]) -> None:
    vectors = model.embed(UNSEEN)
    assert ((vectors >= ranges[0]) & (vectors <= ranges[1])).mean() > 0.9998
    for output_type in OUTPUT_TYPES:
        restored = restore(convert(vectors, output_type, ranges), output_type, ranges=ranges)
        assert (1 - (unit(restored) * unit(vectors)).sum(-1)).max() <= COST[output_type][0], output_type
    codes, scales = convert_scaled(vectors)
    assert (1 - (unit(codes * scales[:, None]) * unit(vectors)).sum(-1)).max() < 1e-4


@pytest.mark.skipif(not STSB.exists(), reason="needs the STS benchmark beside the repository")
def test_spearman_of_every_type(model: lemni.Embedder, ranges: NDArray[np.float32]) -> None:
    first, second, scores = (side[:PAIRS] for side in stsb())
    sides = model.embed(first), model.embed(second)

    def spearman(one: NDArray[np.float32], two: NDArray[np.float32]) -> float:
        return float(spearmanr((unit(one) * unit(two)).sum(-1), scores).statistic)

    exact = spearman(*sides)
    for output_type in OUTPUT_TYPES:
        one, two = (restore(convert(side, output_type, ranges), output_type, ranges=ranges) for side in sides)
        assert abs(spearman(one, two) - exact) <= COST[output_type][1], output_type
    one, two = (codes * scales[:, None] for codes, scales in map(convert_scaled, sides))
    assert abs(spearman(one, two) - exact) <= 5e-4
