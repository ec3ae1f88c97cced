"""`lemni export`: a model as a file for other runtimes, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import click

from lemni.cli.completion import complete_model
from lemni.cli.options import PrecisionChoice, SectionCommand, with_settings

if TYPE_CHECKING:
    from lemni.config import Settings
    from lemni.export import Export
    from lemni.export.model import Format, StoredAs

EPILOG = """\b
Examples:
  lemni export all-MiniLM-L6-v2 -o minilm-onnx            a folder that is a whole model
  lemni export BAAI/bge-large-en-v1.5 -o bge.onnx         the graph alone
  lemni export ./my-model -o ./my-model                   onnx/model.onnx beside the weights
  lemni export ./my-model -o small --dtype float16        half the size
  lemni export ./my-model -o vectors.onnx --pooled        texts in, one vector for each out
  lemni export ./my-model -o ./openvino --format openvino
"""


@click.command(cls=SectionCommand, epilog=EPILOG)
@click.argument("name", metavar="MODEL", shell_complete=complete_model)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="File to write (.onnx or .xml), or a folder, which gets every other file of the model too.",
)
@click.option("--format", "form", type=click.Choice(["onnx", "openvino"]), default="onnx", show_default=True)
@click.option("--revision", help="Branch, tag or commit on the hub; version of a wheel.")
@click.option(
    "--pooled",
    is_flag=True,
    help="Pooling, Dense modules and normalising inside: the output sentence_embedding [batch, dimensions].",
)
@click.option(
    "--dtype",
    type=PrecisionChoice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="What the model's matrices are stored as.",
)
@click.option(
    "--max-seq-length",
    type=click.IntRange(min=1),
    help="Tokens that texts are cut to, in a folder's files; default: as the model says.",
)
@click.option("--opset", type=int, default=17, show_default=True, help="Version of ONNX's operators, 14 to 20.")
@click.option("--check/--no-check", default=True, help="Compare the file with Lemni's own numbers.  [default: check]")
@click.option("--force", is_flag=True, help="Write over files that are there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_settings("Hub")
def export(
    settings: Settings,
    name: str,
    output: Path,
    form: Format,
    revision: str | None,
    pooled: bool,
    dtype: StoredAs,
    max_seq_length: int | None,
    opset: int,
    check: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write a model as ONNX or OpenVINO, for other runtimes.

    Inputs are input_ids, attention_mask and, of models with segments, token_type_ids, int64 [batch, sequence], padded
    on either side. Outputs are last_hidden_state and pooler_output, logits of classifiers and rerankers,
    sparse_embedding of SPLADE models.
    """
    from lemni import hub
    from lemni.export import ExportOptions, export_model
    from lemni.hub.outputs import check_output

    check_output(output, settings.hub)
    spec = hub.describe(hub.resolve(name, settings.hub, revision))
    start = perf_counter()
    if max_seq_length is not None and output.suffix in (".onnx", ".xml"):
        click.echo("--max-seq-length is for a folder's files: one graph takes any length", err=True)
    options = ExportOptions(form, opset, dtype, pooled, max_seq_length, check, force)
    done = export_model(spec, output, options)
    seconds = perf_counter() - start
    if as_json:
        click.echo(json.dumps(_facts(done, spec.files.id, form, dtype, seconds), indent=2))
    else:
        _print(done, seconds)


def _facts(done: Export, model: str, form: str, dtype: str, seconds: float) -> dict[str, object]:
    return {
        "model": model,
        "format": form,
        "opset": done.opset,
        "dtype": dtype,
        "graph": str(done.graph),
        "inputs": list(done.inputs),
        "outputs": list(done.outputs),
        "checked_with": done.engine,
        "max_difference": None if done.engine is None else done.outputs,
        "files": [{"path": str(file), "size": file.stat().st_size} for file in done.files],
        "seconds": round(seconds, 3),
    }


def _print(done: Export, seconds: float) -> None:
    from lemni.cli.models import size

    for file in done.files:
        click.echo(f"{size(file.stat().st_size):>9}  {file}")
    click.echo(f"inputs   {', '.join(done.inputs)}")
    click.echo(f"outputs  {', '.join(done.outputs)}")
    if done.engine is None:
        click.echo("not checked")
    else:
        worst = ", ".join(f"{difference:.1e} ({name})" for name, difference in done.outputs.items())
        click.echo(f"checked  on {done.engine}: differs from Lemni's own by at most {worst}")
    click.echo(f"{size(done.total_bytes)} in {seconds:.1f} s")
