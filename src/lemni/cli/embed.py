"""`lemni embed`: texts in, vectors out, in this process and without a server.

Texts are cut into chunks that go through the engine a few at a time, so that tokenising, computing and writing overlap
and memory stays bounded by the texts themselves.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lemni.cli.options import SectionCommand, with_settings
from lemni.errors import ConfigError, InvalidRequest
from lemni.types import Options, Request, Result

if TYPE_CHECKING:
    from lemni.cli.vectors import Writer
    from lemni.config import Settings
    from lemni.engine.core import Engine
    from lemni.engine.job import Handle
    from lemni.tasks.model import LoadedModel

_CHUNK_TEXTS = 256
_CHUNK_TOKENS = 16_384
_CHUNKS_IN_FLIGHT = 4

EPILOG = """\b
Examples:
  lemni embed "How do I reset my password?"           a vector as JSON, or its beginning on a terminal
  lemni embed "one text" "another" --json | jq .      one JSON object per line
  lemni embed texts.txt -o vectors.npy                one text per line; float32 [lines, dimensions]
  lemni embed rows.jsonl --field body -o out.parquet  columns text and embedding
  zcat log.gz | lemni embed - -m ./my-model           lines of standard input, another model
  lemni embed "a query" --prompt-name query --dimensions 128
"""


@click.command(cls=SectionCommand, epilog=EPILOG)
@click.argument("texts", nargs=-1, metavar="TEXT|-|FILE...")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="File to write: .npy, .jsonl or .parquet, by its ending."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, on a terminal too.")
@click.option("--field", default="text", show_default=True, help="Field of a .jsonl file that holds the text.")
@click.option("--literal", is_flag=True, help="Take every argument as a text, also - and names of files.")
@click.option("--dimensions", type=click.IntRange(min=1), help="Keep the first N values and normalise again.")
@click.option("--normalize/--no-normalize", default=None, help="Unit length or raw; default: as the model does.")
@click.option("--prompt", help="Text put before every text; wins over --prompt-name.")
@click.option("--progress/--no-progress", default=None, help="Progress bar; default: on a terminal, for many texts.")
@with_settings(
    "Model",
    "Engine",
    "Hub",
    leave_out=("served_name", "max_queue_tokens", "interactive_weight", "request_timeout_s", "forward_timeout_s"),
)
def embed(
    settings: Settings,
    texts: tuple[str, ...],
    output: Path | None,
    as_json: bool,
    field: str,
    literal: bool,
    dimensions: int | None,
    normalize: bool | None,
    prompt: str | None,
    progress: bool | None,
) -> None:
    """Turn texts into vectors.

    Each argument is a text, the name of an existing file with one text per line (or .jsonl), or - for the lines of
    standard input.
    """
    from lemni.cli.texts import read_texts
    from lemni.cli.vectors import FileWriter, JsonLines, Preview

    if not texts:
        raise click.UsageError("give a text, a file, or - for standard input", click.get_current_context())
    if len(settings.models) > 1:
        names = ", ".join(model.served_name or model.model for model in settings.models)
        raise ConfigError(f"the settings name several models; choose one with --model: {names}")
    rows = read_texts(texts, sys.stdin.buffer, field, literal=literal)
    if not rows:
        raise click.UsageError(f"there are no texts in {' '.join(texts)}")
    options = Options(dimensions=dimensions, normalize=normalize, prompt=prompt)
    if output is not None:
        destination: FileWriter | nullcontext[Writer] = FileWriter(output, len(rows))
    elif sys.stdout.isatty() and not as_json:
        destination = nullcontext(Preview())
    else:
        destination = nullcontext(JsonLines(sys.stdout.buffer))
    with destination as writer:
        _run(settings, rows, options, writer, progress)
    if output is not None and sys.stderr.isatty():
        click.echo(f"{len(rows)} vectors in {output}", err=True)


def _run(settings: Settings, texts: list[str], options: Options, writer: Writer, progress: bool | None) -> None:
    from tqdm import tqdm

    from lemni.engine.core import Engine
    from lemni.loading import load_model

    show = sys.stderr.isatty() and len(texts) > _CHUNK_TEXTS if progress is None else progress
    with closing(load_model(settings.models[0], settings.hub, settings.engine, settings.media)) as model:
        request = Request((), options, priority="bulk")
        model.validate(request)
        with (
            Engine({model.card.name: model}, settings.engine) as engine,
            tqdm(total=len(texts), unit=" texts", disable=not show, file=sys.stderr) as bar,
        ):
            cut = 0
            for chunk, result in _embedded(engine, model, texts, request):
                writer.write(chunk, result.vectors)
                bar.update(len(chunk))
                cut += len(result.truncated)
        if cut:
            limit = f"{model.card.max_length} tokens; --truncate error refuses such texts"
            click.echo(f"lemni: note: {cut} of {len(texts)} texts were cut to {limit}", err=True)


def _embedded(
    engine: Engine, model: LoadedModel, texts: list[str], blank: Request
) -> Iterator[tuple[list[str], Result]]:
    """Chunks and their vectors, in order; some chunks are under way while one is written."""
    waiting: deque[tuple[list[str], Handle]] = deque()
    try:
        for start, chunk in _chunks(model, texts, blank):
            if len(waiting) == _CHUNKS_IN_FLIGHT:
                yield _finished(*waiting.popleft())
            request = dataclasses.replace(blank, items=chunk, first_item=start)
            waiting.append((chunk, engine.submit(model.card.name, request)))
        while waiting:
            yield _finished(*waiting.popleft())
    except InvalidRequest as error:
        if error.item is None:
            raise
        text = texts[error.item]
        shown = text if len(text) <= 40 else f"{text[:39]}…"
        name = f"text {error.item + 1} ({shown!r})"
        raise InvalidRequest(error.message.replace(f"input[{error.item}]", name)) from error


def _finished(chunk: list[str], handle: Handle) -> tuple[list[str], Result]:
    return chunk, handle.result()


def _chunks(model: LoadedModel, texts: list[str], blank: Request) -> Iterator[tuple[int, list[str]]]:
    start, tokens = 0, 0
    for i, text in enumerate(texts):
        estimate = model.estimate_tokens(text, blank)
        if i > start and (i - start == _CHUNK_TEXTS or tokens + estimate > _CHUNK_TOKENS):
            yield start, texts[start:i]
            start, tokens = i, 0
        tokens += estimate
    yield start, texts[start:]
