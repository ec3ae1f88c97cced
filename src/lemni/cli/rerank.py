"""`lemni rerank`: documents by their relevance to a query, in this process and without a server."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lemni.cli.local import LEFT_OUT, Local
from lemni.cli.options import SectionCommand, with_settings
from lemni.cli.rows import ENDINGS, Row, destination, id_of
from lemni.types import Options, Pair, Request

if TYPE_CHECKING:
    from lemni.config import Settings

_HINT = "Name a model that scores pairs with --model: a cross-encoder with one label, or an embedding model"
_LEAST_TEXT = 20

EPILOG = """\b
Examples:
  lemni rerank "Where do cats sleep?" "On the sofa." "In Rust."   a table on a terminal, else JSON lines
  lemni rerank "Where do cats sleep?" -i notes.txt --top-n 5      the best five lines of a file
  lemni rerank "a query" -i rows.jsonl -o ranked.jsonl            text and id of each line
  cat notes.txt | lemni rerank "a query" -i - -m BAAI/bge-reranker-v2-m3

\b
The default model scores by the cosine of embeddings; a cross-encoder is slower and better.
"""


@click.command(cls=SectionCommand, epilog=EPILOG)
@click.argument("query")
@click.argument("documents", nargs=-1, metavar="[DOCUMENT|-|FILE]...")
@click.option(
    "-i",
    "--input",
    "inputs",
    multiple=True,
    type=click.Path(allow_dash=True),
    help="File with documents: one per line, .jsonl or .json; - is standard input.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write JSON lines to: .jsonl or .ndjson.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, on a terminal too.")
@click.option("--field", default="text", show_default=True, help="Field of objects in a file that holds the document.")
@click.option("--literal", is_flag=True, help="Take every argument as a document, also - and names of files.")
@click.option("--top-n", type=click.IntRange(min=1), help="Only the best N.")
@click.option("--raw", is_flag=True, help="Scores as the model computes them, without its sigmoid or the like.")
@click.option("--prompt", help="Text put before query and documents, or the model's instruction.")
@click.option("--progress/--no-progress", default=None, help="Progress bar; default: on a terminal, if there are many.")
@with_settings("Model", "Engine", "Hub", leave_out=LEFT_OUT)
def rerank(
    settings: Settings,
    query: str,
    documents: tuple[str, ...],
    inputs: tuple[str, ...],
    output: Path | None,
    as_json: bool,
    field: str,
    literal: bool,
    top_n: int | None,
    raw: bool,
    prompt: str | None,
    progress: bool | None,
) -> None:
    """Sort documents by their relevance to QUERY, the best first.

    Each further argument is a document, the name of an existing file with one document per line (or .jsonl, or a list
    in .json), or - for the lines of standard input.
    """
    import numpy as np

    from lemni.cli.drafts import check_place
    from lemni.cli.texts import read_texts
    from lemni.ranking import ranked

    if not documents and not inputs:
        raise click.UsageError("give documents, a file, or - for standard input", click.get_current_context())
    if output is not None:
        check_place(output, ENDINGS)
    given = read_texts(documents, sys.stdin.buffer, field, literal=literal, inputs=inputs)
    if not given:
        raise click.UsageError(f"there are no documents in {' '.join((*documents, *inputs))}")
    texts = [document.text for document in given]
    options = Options(prompt=prompt, activation="none" if raw else None)
    pairs = [Pair(query, text) for text in texts]
    request = Request(pairs, options, ("score",), priority="bulk", field="document")
    with Local(settings) as model:
        model.validate(request, _HINT)
        scores = np.concatenate([result.scores for _, result in model.results(request, texts, progress)])
    best = ranked(scores, top_n)
    rows = [{"index": at, "score": scores[at], "text": texts[at], **id_of(given[at])} for at, _ in best]
    with destination(output, _Table(), as_json=as_json) as writer:
        writer.write(rows)
    if output is not None and sys.stderr.isatty():
        click.echo(f"{len(rows)} documents in {output}", err=True)


class _Table:
    """For a terminal: rank, score, index and as much of the document as a line has room for."""

    def write(self, rows: Iterable[Row]) -> None:
        from lemni.cli.terminal import shortened

        rows = list(rows)
        cells = [(str(n), f"{row['score']:.4f}", str(row["index"])) for n, row in enumerate(rows, 1)]
        head = ("RANK", "SCORE", "INDEX")
        widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
        room = max(shutil.get_terminal_size().columns - sum(widths) - 2 * len(widths), _LEAST_TEXT)
        texts = [shortened(row["text"], room) for row in rows]
        for line, text in zip((head, *cells), ("DOCUMENT", *texts), strict=True):
            numbers = "  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True))
            click.echo(f"{numbers}  {text}".rstrip())

    def close(self) -> None:
        pass
