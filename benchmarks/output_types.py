"""What each output type and each margin of the int8 ranges costs: error of vectors, and Spearman on STSb if present."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from tests.shared import STSB, stsb

import lemni
from benchmarks.texts import mixed
from lemni.tasks.output_types import OUTPUT_TYPES, convert, convert_scaled, restore
from lemni.tasks.ranges import MARGIN, calibrate, ranges_of

Vectors = NDArray[np.float32]

MARGINS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0)


def unit(vectors: Vectors) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=-1, keepdims=True))


def loss(vectors: Vectors, restored: Vectors) -> NDArray[np.float64]:
    """1 - cosine of each vector with what is left of it."""
    return np.asarray(np.abs(1 - (unit(vectors) * unit(restored)).sum(-1)))


def spearman(first: Vectors, second: Vectors, scores: list[float]) -> float:
    return float(spearmanr((unit(first) * unit(second)).sum(-1), scores).statistic)


def main() -> None:
    scores: list[float] = []
    with lemni.load(device="cpu") as model:
        calibration = calibrate(model.embed)
        vectors = model.embed(mixed(1000))
        if STSB.exists():
            one, two, scores = stsb()
            pairs = (model.embed(one), model.embed(two))

    def quality(kind: str, size: int, values: Vectors, first: Vectors | None, second: Vectors | None) -> None:
        lost = loss(vectors, values)
        stsb_column = "" if first is None or second is None else f"{spearman(first, second, scores):10.4f}"
        print(f"{kind:14} {size:7} {lost.mean():12.6f} {lost.max():12.6f} {stsb_column}")

    ranges = ranges_of(calibration, normalize=True)
    print(f"{'type':14} {'bytes':>7} {'mean 1-cos':>12} {'worst':>12} {'Spearman':>10}")
    for kind in OUTPUT_TYPES:
        codes = convert(vectors, kind, ranges)
        both = [restore(convert(side, kind, ranges), kind, ranges=ranges) for side in (pairs if scores else ())]
        quality(kind, codes[0].nbytes, restore(codes, kind, ranges=ranges), *(both or (None, None)))
    scaled, both = [
        [codes * scale[:, None] for codes, scale in map(convert_scaled, side)]
        for side in ((vectors,), pairs if scores else ())
    ]
    quality("int8, scaled", vectors.shape[1] + 4, scaled[0], *(both or (None, None)))

    print(f"\n{'margin':7} {'outside':>9} {'mean 1-cos':>12} {'worst':>12}   (int8; {MARGIN:g} is used)")
    for margin in MARGINS:
        ranges = ranges_of(calibration, normalize=True, margin=margin)
        outside = ((vectors < ranges[0]) | (vectors > ranges[1])).mean()
        lost = loss(vectors, restore(convert(vectors, "int8", ranges), "int8", ranges=ranges))
        print(f"{margin:<7g} {outside:9.4%} {lost.mean():12.6f} {lost.max():12.6f}")


if __name__ == "__main__":
    main()
