"""`lemni classify`: the labels of texts or of pairs of texts, in this process and without a server."""

from __future__ import annotations

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

_HINT = (
    "Name a model for sequence classification with --model: a folder or a hub id, such as "
    "distilbert/distilbert-base-uncased-finetuned-sst-2-english"
)
_SHOWN_LABELS = 3
_SHOWN_CELLS = 40

EPILOG = """\b
Examples:
  lemni classify "Buy cheap pills now!" -m ./my-classifier       labels and scores
  lemni classify texts.txt -m ./my-classifier --top-k 1 --json   the best label of every line
  lemni classify -i pairs.jsonl -m ./my-nli-model -o labels.jsonl
  cat texts.txt | lemni classify - -m ./my-classifier

\b
pairs.jsonl has the two texts of each pair: {"text": "A cat sleeps.", "text_pair": "An animal rests."}
The default model embeds; it has no labels.
"""


@click.command(cls=SectionCommand, epilog=EPILOG)
@click.argument("texts", nargs=-1, metavar="[TEXT|-|FILE]...")
@click.option(
    "-i",
    "--input",
    "inputs",
    multiple=True,
    type=click.Path(allow_dash=True),
    help="File with texts: one per line, .jsonl or .json, there pairs too; - is standard input.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write JSON lines to: .jsonl or .ndjson.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, on a terminal too.")
@click.option("--field", default="text", show_default=True, help="Field of objects in a file that holds the text.")
@click.option("--literal", is_flag=True, help="Take every argument as a text, also - and names of files.")
@click.option("--top-k", type=click.IntRange(min=1), help="Only the best K labels of each text.")
@click.option("--raw", is_flag=True, help="Logits instead of the model's sigmoid or softmax.")
@click.option("--prompt", help="Text put before every text, and before the first of a pair.")
@click.option("--progress/--no-progress", default=None, help="Progress bar; default: on a terminal, for many texts.")
@with_settings("Model", "Engine", "Hub", leave_out=LEFT_OUT)
def classify(
    settings: Settings,
    texts: tuple[str, ...],
    inputs: tuple[str, ...],
    output: Path | None,
    as_json: bool,
    field: str,
    literal: bool,
    top_k: int | None,
    raw: bool,
    prompt: str | None,
    progress: bool | None,
) -> None:
    """Give texts the labels of a classifier, the best first.

    Each argument is a text, the name of an existing file with one text per line (or .jsonl, or a list in .json), or -
    for the lines of standard input.
    """
    import numpy as np

    from lemni.cli.drafts import check_place
    from lemni.cli.texts import read_texts
    from lemni.ranking import labelled

    if not texts and not inputs:
        raise click.UsageError("give a text, a file, or - for standard input", click.get_current_context())
    if output is not None:
        check_place(output, ENDINGS)
    given = read_texts(texts, sys.stdin.buffer, field, literal=literal, inputs=inputs, pairs=True)
    if not given:
        raise click.UsageError(f"there are no texts in {' '.join((*texts, *inputs))}")
    items = [one.text if one.pair is None else Pair(one.text, one.pair) for one in given]
    options = Options(prompt=prompt, activation="none" if raw else None)
    request = Request(items, options, ("classify",), priority="bulk", field="text")
    with Local(settings) as model:
        model.validate(request, _HINT)
        with destination(output, _Lines(top_k or _SHOWN_LABELS), as_json=as_json) as writer:
            for part, result in model.results(request, [one.text for one in given], progress):
                found = labelled(result.labels, model.card.labels, top_k)
                writer.write(
                    {
                        "index": part.start + place,
                        "text": one.text,
                        **({} if one.pair is None else {"text_pair": one.pair}),
                        # numpy's own type keeps float32 from being written with the digits of a float64.
                        "labels": [{"label": label, "score": np.float32(score)} for label, score in labels],
                        **id_of(one),
                    }
                    for place, (one, labels) in enumerate(zip(given[part], found, strict=True))
                )
    if output is not None and sys.stderr.isatty():
        click.echo(f"{len(given)} texts in {output}", err=True)


class _Lines:
    """For a terminal: the text's beginning and its best labels."""

    def __init__(self, most: int) -> None:
        self._most = most

    def write(self, rows: Iterable[Row]) -> None:
        from lemni.cli.terminal import shortened

        for row in rows:
            texts = [row["text"], *([row["text_pair"]] if "text_pair" in row else [])]
            shown = " | ".join(shortened(text, _SHOWN_CELLS // len(texts)) for text in texts)
            best = [f"{label['label']} {label['score']:.4f}" for label in row["labels"][: self._most]]
            more = ["…"] if len(row["labels"]) > self._most else []
            click.echo(f"{shown}  {', '.join([*best, *more])}")

    def close(self) -> None:
        pass
