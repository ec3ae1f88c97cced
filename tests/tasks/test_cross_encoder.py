"""Scores of cross-encoders, against sentence-transformers' CrossEncoder on the same folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder

from lemni.types import Pair
from tests.tasks.classifiers import FAMILIES, FOREIGN, PAIRS, RUNTIMES, ask, load, save_classifier

ITEMS = [Pair(first, second) for first, second in PAIRS]


def reference(folder: Path, **options: Any) -> NDArray[np.float32]:
    scores: NDArray[np.float32] = CrossEncoder(str(folder), device="cpu").predict(PAIRS, **options)
    return scores


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_of_every_family(tmp_path: Path, family: str) -> None:
    save_classifier(tmp_path, family)
    expected = reference(tmp_path)
    assert np.ptp(expected) > 1e-2
    for runtime in ("transformers",) if family in FOREIGN else RUNTIMES:
        model = load(tmp_path, runtime=runtime)
        assert model.card.tasks == ("score", "classify")
        assert model.card.dimensions is None
        scores = ask(model, ITEMS, "score").scores
        np.testing.assert_allclose(scores, expected, atol=1e-5, err_msg=runtime)
        np.testing.assert_allclose(ask(model, ITEMS, "score", alone=True).scores, scores, atol=1e-6)
        np.testing.assert_allclose(ask(model, ITEMS[::-1], "score").scores, scores[::-1], atol=1e-6)
