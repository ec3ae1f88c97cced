"""Reads what quality is measured with: pairs of sentences with scores, and collections with judged documents.

Files: CSV or TSV with two sentences and a score in a line; a folder as BEIR has it (corpus.jsonl, queries.jsonl,
qrels/*.tsv, https://github.com/beir-cellar/beir); Cranfield's three files.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lemni.errors import ConfigError

CRANFIELD = ("cran.all.1400", "cran.qry", "cranqrel")

_FIRST = ("sentence1", "sentence_1", "sentence_a", "text1", "text_a", "query")
_SECOND = ("sentence2", "sentence_2", "sentence_b", "text2", "text_b", "document")
_SCORES = ("score", "similarity", "similarity_score", "label", "relatedness_score")


@dataclass(frozen=True)
class Pairs:
    """`scores[i]` is how alike people found `one[i]` and `two[i]`, on any scale."""

    one: list[str]
    two: list[str]
    scores: list[float]


@dataclass(frozen=True)
class Collection:
    """A document's or query's name is its place in the list; judgments of each query are over 0, and not empty."""

    documents: list[str]
    queries: list[str]
    judgments: list[dict[int, float]]


def read_pairs(path: Path) -> Pairs:
    """Columns by their names (sentence1, sentence2, score ...), else by what is in them: of the columns of numbers the
    score is the one with the smallest largest value, and the texts are the two longest of the others.

    Raises:
        ConfigError: no such file, or not such columns.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            tabs = path.suffix.lower() == ".tsv"
            reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(file)
            rows = [row for row in reader if row]
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if not rows or len(rows[0]) < 3:
        raise ConfigError(f"{path}: needs lines with two sentences and a score")
    columns = _named([name.strip().lower() for name in rows[0]])
    body = rows if columns is None else rows[1:]
    first, second, score = _guessed(path, body) if columns is None else columns
    least = max(first, second, score) + 1
    for number, row in enumerate(body, 1 if columns is None else 2):
        if len(row) < least or _number(row[score]) is None:
            raise ConfigError(f"{path}: line {number} has no score in column {score + 1}")
    scores = [float(row[score]) for row in body]
    if len(set(scores)) < 2:
        raise ConfigError(f"{path}: the scores in column {score + 1} are all alike: nothing can be ranked by them")
    return Pairs([row[first] for row in body], [row[second] for row in body], scores)


def read_collection(folder: Path) -> Collection:
    """Cranfield's files if they are there, else BEIR's. Raises ConfigError."""
    try:
        if all((folder / name).is_file() for name in CRANFIELD):
            return _cranfield(folder)
        if (folder / "corpus.jsonl").is_file() and (folder / "queries.jsonl").is_file():
            return _beir(folder)
    except (OSError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise ConfigError(f"{folder}: cannot be read: {type(error).__name__}: {error}") from error
    raise ConfigError(
        f"{folder}: needs corpus.jsonl, queries.jsonl and qrels/*.tsv, or Cranfield's {', '.join(CRANFIELD)}"
    )


def _named(head: Seq[str]) -> tuple[int, int, int] | None:
    found = [next((head.index(name) for name in names if name in head), None) for names in (_FIRST, _SECOND, _SCORES)]
    first, second, score = found
    return None if first is None or second is None or score is None else (first, second, score)


def _guessed(path: Path, rows: Seq[Seq[str]]) -> tuple[int, int, int]:
    largest: dict[int, float] = {}
    lengths: dict[int, int] = {}
    for column in range(min(map(len, rows))):
        numbers = [_number(row[column]) for row in rows]
        known = [number for number in numbers if number is not None]
        if len(known) == len(rows):
            largest[column] = max(known)
        else:
            lengths[column] = sum(len(row[column]) for row in rows)
    if not largest or len(lengths) < 2:
        raise ConfigError(f"{path}: needs columns of two sentences and a score: sentence1, sentence2, score")
    first, second = sorted(sorted(lengths, key=lambda column: -lengths[column])[:2])
    return first, second, min(largest, key=lambda column: largest[column])


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _cranfield(folder: Path) -> Collection:
    """Judgments name queries by their place in the file, not by the number that is written there, and go from 1 (a
    complete answer) to 4 (minimum interest); -1 is none. http://ir.dcs.gla.ac.uk/resources/test_collections/cran/"""
    documents, queries = (_records(folder / name) for name in CRANFIELD[:2])
    judgments: list[dict[int, float]] = [{} for _ in queries]
    for line in (folder / CRANFIELD[2]).read_text("latin-1").splitlines():
        if line.strip():
            query, document, code = map(int, line.split()[:3])
            if 1 <= code <= 4:
                judgments[query - 1][document - 1] = 5 - code
    return _answered(documents, queries, judgments)


def _records(path: Path) -> list[str]:
    """Of each record (`.I 1`, fields `.T`, `.A`, `.B`, `.W`) the text, `.W`, in one line; it begins with the title."""
    records = re.split(r"^\.I .*$", path.read_text("latin-1"), flags=re.M)[1:]
    return [" ".join(record.split("\n.W", 1)[1].split()) for record in records]


def _beir(folder: Path) -> Collection:
    documents = {str(row["_id"]): f"{row.get('title') or ''} {row['text']}".strip() for row in _lines(folder, "corpus")}
    queries = {str(row["_id"]): str(row["text"]) for row in _lines(folder, "queries")}
    files = sorted((folder / "qrels").glob("*.tsv"))
    if not files:
        raise ConfigError(f"{folder}: has no qrels/*.tsv")
    file = next((file for file in files if file.stem == "test"), files[0])
    places = {name: place for place, name in enumerate(documents)}
    numbers = {name: place for place, name in enumerate(queries)}
    judgments: list[dict[int, float]] = [{} for _ in queries]
    for line in file.read_text("utf-8").splitlines()[1:]:
        query, document, relevance = line.split("\t")[:3]
        if float(relevance) > 0 and query in numbers and document in places:
            judgments[numbers[query]][places[document]] = float(relevance)
    return _answered(list(documents.values()), list(queries.values()), judgments)


def _lines(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    with (folder / f"{name}.jsonl").open(encoding="utf-8") as file:
        yield from (json.loads(line) for line in file if line.strip())


def _answered(documents: list[str], queries: Seq[str], judgments: Seq[dict[int, float]]) -> Collection:
    places = [place for place, judged in enumerate(judgments) if judged]
    if not places:
        raise ConfigError("no query of the collection has a relevant document in it")
    return Collection(documents, [queries[place] for place in places], [judgments[place] for place in places])
