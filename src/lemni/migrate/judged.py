"""Queries with judged documents, from files, and how well a ranking of ids does on them.

Queries: `.jsonl` with `_id` (or `id`) and `text` as BEIR has it, `.tsv` or `.csv` with id and text, or Cranfield's
`cran.qry`. Judgements: BEIR's tab-separated `query-id corpus-id score`, TREC's `query 0 document relevance`, or
Cranfield's `cranqrel`, whose queries are counted and whose codes go from 1, a complete answer, to 4.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lemni.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Judged:
    """Queries with at least one relevant document; `relevance[i]` is document id, as a text, -> relevance over 0."""

    queries: list[str]
    relevance: list[dict[str, float]]


def read_judged(queries: Path, qrels: Path) -> Judged:
    """Raises ConfigError for a file that cannot be read, naming the line, or where no query is judged."""
    texts, by_place = _read(queries, _queries)
    judged = _read(qrels, _judgements)
    if by_place:  # Cranfield: judgements count the queries, whatever number the file gives them
        cranfield = {query: {name: 5 - code for name, code in of.items() if code <= 4} for query, of in judged.items()}
        judged = cranfield
    known = [(text, judged[name]) for name, text in texts.items() if judged.get(name)]
    if not known:
        raise ConfigError(f"{qrels}: judges none of the {len(texts)} queries of {queries}")
    return Judged([text for text, _ in known], [relevance for _, relevance in known])


def ndcg(ranking: Seq[Seq[str]], relevance: Seq[Mapping[str, float]], depth: int = 10) -> float:
    """Mean nDCG with the relevance itself as the gain, as trec_eval has it."""
    discounts = 1 / np.log2(np.arange(2, depth + 2))
    found = []
    for row, judged in zip(ranking, relevance, strict=True):
        gains = np.array([judged.get(name, 0.0) for name in row[:depth]])
        ideal = np.sort(list(judged.values()))[::-1][:depth]
        found.append((gains @ discounts[: len(gains)]) / (ideal @ discounts[: len(ideal)]))
    return float(np.mean(found))


def recall(ranking: Seq[Seq[str]], relevance: Seq[Mapping[str, float]], depth: int) -> float:
    """Mean share of the relevant documents that are among the first `depth`."""
    return float(
        np.mean([len({*row[:depth]} & {*judged}) / len(judged) for row, judged in zip(ranking, relevance, strict=True)])
    )


def _read(path: Path, reader):  # type: ignore[no-untyped-def]
    try:
        return reader(path)
    except (OSError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise ConfigError(f"{path}: cannot be read: {type(error).__name__}: {error}") from error


def _queries(path: Path) -> tuple[dict[str, str], bool]:
    """Texts by id, and whether the ids are places."""
    if path.suffix == ".qry":
        records = re.split(r"^\.I .*$", path.read_text("latin-1"), flags=re.M)[1:]
        texts = (" ".join(record.split("\n.W", 1)[1].split()) for record in records)
        return {str(place): text for place, text in enumerate(texts, 1)}, True
    content = path.read_text("utf-8")
    if path.suffix in (".tsv", ".csv"):
        rows = list(csv.reader(content.splitlines(), delimiter="\t" if path.suffix == ".tsv" else ","))
        head = [name.lower() for name in rows[0]]
        body = rows[1:] if "text" in head or "query" in head else rows
        return {row[0]: row[1] for row in body if row}, False
    lines = [json.loads(line) for line in content.splitlines() if line.strip()]
    return {str(one.get("_id", one.get("id"))): str(one["text"]) for one in lines}, False


def _judgements(path: Path) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for number, line in enumerate(path.read_text("latin-1").splitlines()):
        parts = line.split("\t") if "\t" in line else line.split()
        if not parts or (number == 0 and not _is_number(parts[-1])):
            continue
        if len(parts) < 3:
            raise ValueError(f"line {number + 1} has {len(parts)} columns")
        # TREC puts a column that means nothing between the query and the document.
        query, document, relevance = (parts[0], parts[2], parts[3]) if len(parts) >= 4 else (*parts[:2], parts[2])
        if float(relevance) > 0:
            found.setdefault(query, {})[document] = float(relevance)
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
