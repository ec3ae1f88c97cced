"""What computing in int8 gains and costs on this CPU: speed, cosine to float32, and Spearman on STSb if present."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
from scipy.stats import spearmanr
from tests.shared import STSB, stsb

import lemni
from benchmarks.rounds import alternate, table
from benchmarks.texts import mixed

TEXTS = 600


def main() -> None:
    texts = mixed(TEXTS)
    with ExitStack() as stack:
        models = {dtype: stack.enter_context(lemni.load(device="cpu", dtype=dtype)) for dtype in ("float32", "int8")}
        table(alternate({dtype: lambda m=m: m.embed(texts) for dtype, m in models.items()}), TEXTS, "texts", "float32")
        query = ["How do I reset my password?"] * 50
        alone = {dtype: lambda m=m: [m.embed(text) for text in query] for dtype, m in models.items()}
        print()
        table(alternate(alone), len(query), "queries", "float32")
        exact, rough = (models[dtype].embed(texts) for dtype in ("float32", "int8"))
        cosines = (exact * rough).sum(axis=1)
        print(f"\nint8 to float32: cosine {cosines.mean():.5f} on average, {cosines.min():.4f} at least")
        if STSB.exists():
            one, two, scores = stsb()
            for dtype, model in models.items():
                alike = (model.embed(one) * model.embed(two)).sum(axis=1)
                print(f"{dtype:8} STSb Spearman {float(np.asarray(spearmanr(alike, scores).statistic)):.4f}")


if __name__ == "__main__":
    main()
