"""Late interaction on real judgments: nDCG@10 on the Cranfield collection, and bytes, for several ways of storing.

    python examples/late_interaction_cranfield.py                        # all-MiniLM-L6-v2, some two minutes on 2 cores
    python examples/late_interaction_cranfield.py --documents 300        # the first 300 documents
    python examples/late_interaction_cranfield.py --model lightonai/answerai-colbert-small-v1

A model that was not made for late interaction, such as the default, gives the states of its tokens instead. The
collection, 1,400 abstracts and 225 questions, is in ../shared/data/cranfield beside the repository, or in `--data`.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import lemni
from lemni.client.late_interaction import PackedMultiVectors, pack, pool_tokens, quantize, top_k
from lemni.config import DEFAULT_MODEL
from lemni.errors import MissingExtra
from lemni.quantize.data import CRANFIELD, Collection, read_collection

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "cranfield"
WHERE = "http://ir.dcs.gla.ac.uk/resources/test_collections/cran/"
DEPTH = 10
TEXTS_AT_ONCE = 64

Vectors = NDArray[np.float32]
Judgments = Mapping[int, float]
"""Place of a document -> how relevant it is, more than 0."""


@dataclass(frozen=True)
class Encoded:
    """Texts as a model sees them, at unit length.

    Attributes:
        dense: float32 [texts, dim], or None if the model has none.
        tokens: of each text float32 [tokens, dim].
        cut: how many texts were longer than the model takes.
    """

    dense: Vectors | None
    tokens: list[Vectors]
    cut: int


def read(folder: Path, limit: int | None = None) -> Collection:
    """Cranfield's three files: the first `limit` documents, and the queries that some of them are relevant to."""
    whole = read_collection(folder)
    documents = whole.documents[:limit]
    left = [{place: gain for place, gain in one.items() if place < len(documents)} for one in whole.judgments]
    answered = [place for place, judged in enumerate(left) if judged]
    return Collection(documents, [whole.queries[place] for place in answered], [left[place] for place in answered])


def ndcg(places: NDArray[np.int64], judgments: Seq[Judgments]) -> float:
    """Mean nDCG of rankings [queries, depth], with the relevance itself as the gain (Jarvelin and Kekalainen 2002)."""
    discounts = 1 / np.log2(np.arange(2, places.shape[1] + 2))
    values = []
    for ranking, judged in zip(places.tolist(), judgments, strict=True):
        gains = np.array([judged.get(place, 0) for place in ranking])
        best = np.sort(list(judged.values()))[::-1][: len(discounts)]
        values.append(gains @ discounts / (best @ discounts[: len(best)]))
    return float(np.mean(values))


def encode(model: lemni.Embedder, texts: list[str], side: Literal["query", "document"]) -> Encoded:
    """Each text's vector and those of its tokens, by one pass over the texts."""
    late: Literal["multi_vector", "tokens"] = "multi_vector" if "multi_vector" in model.card.tasks else "tokens"
    if late not in model.card.tasks:
        sys.exit(f"{model.card.name} gives no vectors of tokens; it does {', '.join(model.card.tasks)}")
    dense, tokens, cut = [], [], 0
    for start in tqdm(range(0, len(texts), TEXTS_AT_ONCE), desc=f"{side} batches", disable=None):
        items = texts[start : start + TEXTS_AT_ONCE]
        tasks: tuple[Literal["embed", "multi_vector", "tokens"], ...] = (late,)
        if "embed" in model.card.tasks:
            tasks = ("embed", late)
        result = model.run(lemni.Request(items, lemni.Options(input_type=side, truncate="right"), tasks))
        cut += len(result.truncated)
        tokens += [_unit_length(rows) for rows in result.multi_vectors]
        if "embed" in tasks:
            dense.append(_unit_length(result.vectors))
    return Encoded(np.concatenate(dense) if dense else None, tokens, cut)


def _unit_length(rows: Vectors) -> Vectors:
    unit: Vectors = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), np.float32(1e-12))
    return unit


def compare(queries: Encoded, documents: Encoded, judgments: Seq[Judgments]) -> None:
    """Print a line for each way of storing the documents."""
    print(f"{'':24}{'nDCG@10':>8}{'bytes/document':>16}{'search':>9}")
    if queries.dense is not None and documents.dense is not None:
        # One vector is a multi-vector of one token, and MaxSim of those is their dot product.
        _line("one vector, cosine", queries.dense[:, None], pack(documents.dense[:, None]), judgments)

    def pooled(factor: int) -> PackedMultiVectors:
        return pack([pool_tokens(rows, factor) for rows in documents.tokens])

    ways: dict[str, Callable[[], PackedMultiVectors]] = {
        "MaxSim, float32": lambda: pack(documents.tokens),
        "MaxSim, pooled by 2": lambda: pooled(2),
        "MaxSim, pooled by 3": lambda: pooled(3),
        "MaxSim, int8": lambda: quantize(documents.tokens, "int8"),
        "MaxSim, binary": lambda: quantize(documents.tokens, "binary"),
        "MaxSim, pooled, binary": lambda: quantize([pool_tokens(rows, 2) for rows in documents.tokens], "binary"),
    }
    for name, store in ways.items():
        try:
            _line(name, queries.tokens, store(), judgments)
        except MissingExtra as error:
            print(f"{name:24}{error}")


def _line(name: str, queries: Seq[Vectors] | Vectors, documents: PackedMultiVectors, judgments: Seq[Judgments]) -> None:
    start = time.perf_counter()
    places, _ = top_k(queries, documents, DEPTH)
    seconds = time.perf_counter() - start
    size = documents.nbytes / len(documents)
    print(f"{name:24}{ndcg(places, judgments):8.3f}{size:16,.0f}{seconds:7.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a folder or hub id (default: %(default)s)")
    parser.add_argument("--data", type=Path, default=BESIDE, metavar="DIR", help=f"folder with {', '.join(CRANFIELD)}")
    parser.add_argument("--documents", type=int, metavar="N", help="the first N documents only")
    chosen = parser.parse_args()
    if chosen.documents is not None and chosen.documents < 1:
        parser.error(f"--documents is {chosen.documents}; it must be 1 or more")
    if missing := [name for name in CRANFIELD if not (chosen.data / name).is_file()]:
        parser.exit(
            2,
            f"{chosen.data} has no {missing[0]}. Download the Cranfield collection from {WHERE}, unpack "
            f"{', '.join(CRANFIELD)} into a folder, and name it with --data\n",
        )
    collection = read(chosen.data, chosen.documents)
    if not collection.queries:
        parser.error(f"none of the first {chosen.documents} documents is relevant to any query; take more")
    logging.getLogger("lemni").setLevel(logging.ERROR)  # what is cut is counted below
    try:
        model = lemni.load(chosen.model)
    except lemni.LemniError as error:
        parser.exit(1, f"{error}\n")
    with model:
        documents = encode(model, collection.documents, "document")
        queries = encode(model, collection.queries, "query")
        card = model.card
    print(f"{card.name}: {len(collection.documents):,} documents, {len(collection.queries):,} queries")
    print(f"{documents.cut:,} documents were cut to {card.max_length} tokens\n")
    compare(queries, documents, collection.judgments)


if __name__ == "__main__":
    main()
