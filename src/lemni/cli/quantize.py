"""`lemni quantize`: a model's weights in another precision as a folder, or all precisions side by side."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from lemni.cli.completion import complete_model
from lemni.cli.local import LEFT_OUT
from lemni.cli.models import size
from lemni.cli.options import PrecisionChoice, SectionCommand, with_settings
from lemni.errors import ConfigError

if TYPE_CHECKING:
    from lemni.config import Settings
    from lemni.hub import ModelSpec
    from lemni.quantize.compare import Comparison, Row
    from lemni.quantize.precisions import Precision

EPILOG = """\b
Examples:
  lemni quantize all-MiniLM-L6-v2                         size, memory, speed and cosines of every precision
  lemni quantize ./my-model --sts pairs.csv --retrieval ./scifact -o report --plot
  lemni quantize ./my-model --precision int8 -o my-model-int8
  lemni serve ./my-model-int8                             computes in int8, as it is stored
"""

_OF_COMPARE = ("texts", "sts", "retrieval", "accuracy", "rounds", "plot")
# Settings of a model that computes; a model that is written has its own.
_OF_COMPUTING = ("max_length", "truncate", "pooling", "prompt_name", "runtime", "device", "threads", "max_batch_tokens")


@click.command(cls=SectionCommand, epilog=EPILOG)
@click.argument("name", metavar="MODEL", shell_complete=complete_model)
@click.option(
    "--precision",
    type=PrecisionChoice(["fp32", "fp16", "bf16", "int8", "compare"]),
    default="compare",
    show_default=True,
    help="What to write, or compare: measure all that this device computes in.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="New folder for the model; of compare, the folder for compare.json and plots.",
)
@click.option("--texts", type=click.Path(path_type=Path), help="compare: file with a text per line; else our own.")
@click.option("--sts", type=click.Path(path_type=Path), help="compare: CSV with two sentences and a score; Spearman.")
@click.option("--retrieval", type=click.Path(path_type=Path), help="compare: folder as BEIR's or Cranfield's; nDCG@10.")
@click.option("--accuracy/--no-accuracy", default=True, help="compare: cosines to fp32 too.  [default: accuracy]")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="compare: of timing.")
@click.option("--plot", is_flag=True, help="compare: bars as compare.svg and compare.png. Extra: plots.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_settings("Model", "Engine", "Hub", leave_out=(*LEFT_OUT, "model", "dtype", "graph_file"))
def quantize(
    settings: Settings,
    name: str,
    precision: Literal["fp32", "fp16", "bf16", "int8", "compare"],
    output: Path | None,
    texts: Path | None,
    sts: Path | None,
    retrieval: Path | None,
    accuracy: bool,
    rounds: int,
    plot: bool,
    as_json: bool,
) -> None:
    """Write a model in another precision, or compare the precisions.

    The written folder is a whole model: every other file is copied. int8 is stored in the layout of compressed-tensors,
    which transformers reads too.
    """
    from lemni.hub.outputs import check_output

    context = click.get_current_context()
    if precision == "compare":
        _compare(settings, name, output, texts, sts, retrieval, accuracy, rounds, plot, as_json)
        return
    options = (*_OF_COMPARE, *_OF_COMPUTING)
    given = [one for one in options if context.get_parameter_source(one) is click.core.ParameterSource.COMMANDLINE]
    if given:
        raise click.UsageError(f"--{given[0].replace('_', '-')} is for --precision compare", context)
    if output is None:
        raise click.UsageError("name a new folder for the model with -o", context)
    check_output(output, settings.hub)
    _write(_spec(settings, name), precision, output, as_json)


def _spec(settings: Settings, name: str) -> ModelSpec:
    from lemni import hub

    return hub.describe(hub.resolve(name, settings.hub, settings.models[0].revision))


def _write(spec: ModelSpec, precision: Precision, output: Path, as_json: bool) -> None:
    from lemni.quantize.folder import write_model

    written = write_model(spec, precision, output)
    if as_json:
        click.echo(json.dumps({**asdict(written), "path": str(written.path)}, indent=2))
        return
    layers = f", {written.layers} layers as codes" if written.layers else ""
    before, after = size(written.source_bytes), size(written.weights_bytes)
    click.echo(f"{written.path}: {precision}{layers}; weights {before} -> {after}")


def _compare(
    settings: Settings,
    name: str,
    output: Path | None,
    texts: Path | None,
    sts: Path | None,
    retrieval: Path | None,
    accuracy: bool,
    rounds: int,
    plot: bool,
    as_json: bool,
) -> None:
    from lemni.devices import choose_devices
    from lemni.quantize.compare import compare
    from lemni.quantize.data import read_collection, read_pairs
    from lemni.quantize.plots import check_plots
    from lemni.quantize.plots import plot as draw
    from lemni.quantize.precisions import PRECISIONS

    if plot:
        check_plots()
        if output is None:
            raise click.UsageError("name a folder for the plots with -o")
    if (sts or retrieval) and not accuracy:
        raise click.UsageError("--sts and --retrieval measure accuracy, which --no-accuracy leaves out")
    if output is not None:  # before minutes of measuring
        output.mkdir(parents=True, exist_ok=True)
    pairs = read_pairs(sts) if sts else None
    collection = read_collection(retrieval) if retrieval else None
    lines = _texts(texts)
    spec = _spec(settings, name)
    model = settings.models[0]
    asked = {**_set(model), **_set(settings.engine), **_set(settings.hub), "model": name}
    on_gpu = choose_devices(model.device, model.runtime) != ("cpu",)
    found = compare(
        spec,
        asked,
        lines,
        [one for one in PRECISIONS if one != "int8" or not on_gpu],
        rounds=rounds,
        accuracy=accuracy,
        pairs=pairs,
        collection=collection,
        progress=_progress,
    )
    report = {"model": spec.files.id, "texts": len(lines), **asdict(found)}
    if output is not None:
        (output / "compare.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
        if plot:
            draw(found.rows, spec.files.id, output)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        _print(found)


def _set(section: Any) -> dict[str, Any]:
    """What was asked for in a section of the settings, as JSON."""
    values: dict[str, Any] = section.model_dump(mode="json", exclude_unset=True)
    return {key: value for key, value in values.items() if key not in ("model", "dtype", *LEFT_OUT)}


def _texts(path: Path | None) -> list[str]:
    from lemni.tasks.ranges import corpus

    if path is None:
        return corpus()
    try:
        lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if not lines:
        raise ConfigError(f"{path}: has no texts")
    return lines


def _progress(step: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{step}", nl=False, err=True)


def _print(found: Comparison) -> None:
    if sys.stderr.isatty():
        click.echo("\r\033[K", nl=False, err=True)
    columns = [
        (head, [cell(row) for row in found.rows]) for head, cell in _COLUMNS if any(cell(row) for row in found.rows)
    ]
    widths = [max(len(cell) for cell in (head, *cells)) for head, cells in columns]
    for number in range(-1, len(found.rows)):
        cells = [head if number < 0 else cells[number] for head, cells in columns]
        first, *rest = (
            f"{cell:{'<' if place == 0 else '>'}{width}}"
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        click.echo("  ".join([first, *rest]).rstrip())
    for precision, why in found.left_out.items():
        click.echo(f"{precision} is left out: {why}", err=True)


def _decimals(value: float | None, count: int) -> str:
    return "" if value is None else f"{value:.{count}f}"


def _memory(row: Row) -> str:
    return size(row.resident_bytes) if row.resident_bytes else ""


_COLUMNS = (
    ("PRECISION", lambda row: row.precision),
    ("WEIGHTS", lambda row: size(row.weights_bytes)),
    ("MEMORY", _memory),
    ("GPU", lambda row: size(row.gpu_bytes) if row.gpu_bytes else ""),
    ("LOAD", lambda row: f"{row.load_s:.2f} s"),
    ("QUERY", lambda row: f"{row.query_ms:.2f} ms"),
    ("TEXTS/S", lambda row: _decimals(row.texts_per_s, 0)),
    ("SPEED", lambda row: f"{row.speed:.2f} x"),
    ("COSINE", lambda row: _decimals(row.cosine_mean, 5)),
    ("MIN", lambda row: _decimals(row.cosine_min, 5)),
    ("MAX", lambda row: _decimals(row.cosine_max, 5)),
    ("SPEARMAN", lambda row: _decimals(row.spearman, 4)),
    ("NDCG@10", lambda row: _decimals(row.ndcg, 4)),
)
