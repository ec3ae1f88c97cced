"""`lemni embed`: texts in, vectors out, in this process and without a server.

Dense vectors, or what the model is made for instead: term weights, a vector per token. Files into a file or a store are
a bulk job (`lemni.cli.bulk`); texts, and files onto the screen, go through here.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from lemni.cli.bulk import HINT, are_inputs, bulk_options, run_bulk
from lemni.cli.local import LEFT_OUT, Local
from lemni.cli.options import SectionCommand, with_settings
from lemni.errors import InvalidRequest
from lemni.types import InputType, Options, Request, Result, Task

if TYPE_CHECKING:
    from lemni.cli.vectors import Vectors, Writer
    from lemni.config import Settings
    from lemni.tasks.output_types import OutputType

# The first that the model does, in its own order, is what it is made for.
_TASKS: tuple[Task, ...] = ("embed", "sparse", "multi_vector")

EPILOG = """\b
Examples:
  lemni embed "How do I reset my password?"           a vector as JSON, or its beginning on a terminal
  lemni embed "one text" "another" --json | jq .      one JSON object per line
  lemni embed texts.txt -o vectors.npy                one text per line; float32 [lines, dimensions]
  lemni embed rows.jsonl --text body -o out.parquet   columns id, text, the others, embedding
  lemni embed "data/*.parquet" -o "qdrant://localhost:6333?collection=docs"
  lemni embed rows.csv -o out.npy --dry-run           how long it will take
  zcat log.gz | lemni embed - -m ./my-model           lines of standard input, another model
  lemni embed "a query" --prompt-name query --dimensions 128
  lemni embed texts.txt -o small.npy --output-type int8
"""


@click.command(cls=SectionCommand, epilog=EPILOG)
@click.argument("texts", nargs=-1, metavar="TEXT|-|FILE...")
@click.option(
    "-o",
    "--output",
    metavar="FILE|FOLDER/|STORE",
    help="Where to write: .npy .npz .jsonl .parquet .arrow .lance .safetensors, or a vector store's address.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, on a terminal too.")
@click.option("--text", "--field", "field", default="text", show_default=True, help="Column or field with the texts.")
@click.option("--literal", is_flag=True, help="Take every argument as a text, also - and names of files.")
@click.option(
    "--output-type",
    type=click.Choice(["float32", "float16", "int8", "uint8", "binary", "ubinary"]),
    default="float32",
    show_default=True,
    help="Number type of dense vectors; binary and ubinary are one bit per dimension, eight in a byte.",
)
@click.option(
    "--input-type",
    type=click.Choice(["query", "document"]),
    help="Side of a search that the texts are on, for models that treat the two differently.",
)
@click.option("--dimensions", type=click.IntRange(min=1), help="Keep the first N values and normalise again.")
@click.option("--normalize/--no-normalize", default=None, help="Unit length or raw; default: as the model does.")
@click.option("--prompt", help="Text put before every text; wins over --prompt-name.")
@click.option("--progress/--no-progress", default=None, help="Progress bar; default: on a terminal, for many texts.")
@bulk_options
@with_settings("Model", "Engine", "Hub", leave_out=LEFT_OUT)
def embed(
    settings: Settings,
    texts: tuple[str, ...],
    output: str | None,
    as_json: bool,
    field: str,
    literal: bool,
    output_type: OutputType,
    input_type: InputType | None,
    dimensions: int | None,
    normalize: bool | None,
    prompt: str | None,
    progress: bool | None,
    **bulk: Any,
) -> None:
    """Turn texts into vectors.

    Each argument is a text, the name of an existing file with one text per line (or .jsonl, or a list in .json), or -
    for the lines of standard input.

    With -o the arguments may also be .csv, .parquet, .arrow and .lance files, folders of `datasets`, patterns and URLs.
    They are streamed; an interrupted run goes on where it was when the same command is given again. Rows that cannot be
    embedded are listed in OUTPUT.rejects.jsonl.
    """
    from lemni.cli.drafts import check_place
    from lemni.cli.texts import read_texts
    from lemni.cli.vectors import ENDINGS, check_holds

    if not texts:
        raise click.UsageError("give a text, a file, or - for standard input", click.get_current_context())
    if output is not None and not literal and are_inputs(texts, bulk["query"]):
        wanted: dict[str, Any] = {
            "dimensions": dimensions,
            "normalize": normalize,
            "prompt": prompt,
            "input_type": input_type,
        }
        wanted.update(text=field, output_type=output_type, progress=progress)
        run_bulk(settings, texts, output, wanted, **bulk)
        return
    _refuse_bulk(bulk)
    path = None if output is None else Path(output)
    if path is not None:
        check_place(path, ENDINGS)
    given = [one.text for one in read_texts(texts, sys.stdin.buffer, field, literal=literal)]
    if not given:
        raise click.UsageError(f"there are no texts in {' '.join(texts)}")
    options = Options(dimensions=dimensions, normalize=normalize, prompt=prompt, input_type=input_type)
    with Local(settings) as model:
        task: Task = next((task for task in model.card.tasks if task in _TASKS), "embed")
        request = Request(given, options, (task,), priority="bulk", field="text")
        model.validate(request, HINT)
        if path is not None:
            check_holds(path, task, model.card.name)
        if task != "embed" and output_type != "float32":
            raise InvalidRequest(f"--output-type is for dense vectors, which {model.card.name} does not give")
        ranges = _ranges(settings, model, options, output_type)
        with _destination(path, len(given), as_json=as_json) as writer:
            for part, result in model.results(request, given, progress):
                writer.write(given[part], _vectors(result, task, output_type, ranges, part.start))
    if path is not None and sys.stderr.isatty():
        click.echo(f"{len(given)} texts in {path}", err=True)


def _refuse_bulk(bulk: dict[str, Any]) -> None:
    """Raises click.UsageError for an option that only a bulk job has."""
    context = click.get_current_context()
    for param in context.command.params:
        if param.name in bulk and context.get_parameter_source(param.name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{param.opts[0]} is for files that are embedded with -o", context)


def _destination(output: Path | None, count: int, *, as_json: bool) -> AbstractContextManager[Writer]:
    from lemni.cli.rows import JsonLines
    from lemni.cli.vectors import Preview, VectorRows, file_writer

    if output is not None:
        return file_writer(output, count)
    if sys.stdout.isatty() and not as_json:
        return nullcontext(Preview())
    return nullcontext(VectorRows(JsonLines(sys.stdout.buffer)))


def _ranges(settings: Settings, model: Local, options: Options, output_type: OutputType) -> Any:
    """float32 [2, dimensions] where the type needs them: from the cache, or measured now and kept there."""
    from lemni.hub.cache import DEFAULT_DIR
    from lemni.tasks.output_types import needs_ranges
    from lemni.tasks.ranges import Ranges, calibrate, calibration_request, key_of

    if not needs_ranges(output_type):
        return None
    kept = Ranges((settings.hub.cache_dir or DEFAULT_DIR).expanduser())
    key = key_of(model.card)
    if kept.of(key, model.card, options) is None:
        measured = model.run(calibration_request())
        kept.put(key, calibrate(lambda _: measured.vectors))
    return kept.of(key, model.card, options)


def _vectors(result: Result, task: Task, output_type: OutputType, ranges: Any, first: int) -> Vectors:
    """A chunk's vectors as they are written; `first` is the number of its first text, from 0."""
    from lemni.tasks.output_types import convert

    if task == "sparse":
        return result.sparse
    if task == "multi_vector":
        return result.multi_vectors
    try:
        return convert(result.vectors, output_type, ranges)
    except InvalidRequest as error:
        if error.item is None:
            raise
        message = error.message.replace(f"item {error.item}:", f"text {first + error.item + 1}:")
        raise InvalidRequest(message) from None
