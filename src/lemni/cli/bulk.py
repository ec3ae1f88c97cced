"""The bulk side of `lemni embed`: its options, and what a job says before and after. The job itself is `lemni.bulk`."""

from __future__ import annotations

import glob
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lemni.cli.models import size
from lemni.cli.options import SectionOption
from lemni.errors import ConfigError, InvalidRequest, TaskNotSupported

if TYPE_CHECKING:
    from lemni.bulk import Estimate, Summary
    from lemni.bulk.plan import Model
    from lemni.config import Settings

_URL = "://"
HINT = "Name an embedding model with --model: a folder or a hub id"
_SECTION = "Files with -o"


def _option(*names: str, **rest: Any) -> Callable[..., Any]:
    return click.option(*names, cls=SectionOption, section=_SECTION, **rest)


_OPTIONS = (
    _option("--id", "id_column", metavar="COLUMN", help="Column that names a row; default: id, else its number."),
    _option("--carry", metavar="COLUMNS", help="Other columns to keep, by commas, or none; default: all."),
    _option("--images", is_flag=True, help="The texts are paths of images."),
    _option("--query", metavar="SQL", help="The input is a database, by an SQLAlchemy URL, and this its query."),
    _option(
        "--input-format",
        metavar="FORMAT",
        help="Of the input: txt, jsonl, json, csv, tsv, parquet ...; default: by its name, txt for -.",
    ),
    _option(
        "--format",
        "output_format",
        metavar="FORMAT",
        help="Of the output: npy, jsonl, parquet, chroma, pinecone ...; default: by its name.",
    ),
    _option("--vector-column", default="embedding", show_default=True, help="Column of the vectors."),
    _option(
        "--task", type=click.Choice(["embed", "sparse", "multi_vector"]), help="Default: what the model is made for."
    ),
    _option(
        "--empty",
        type=click.Choice(["reject", "embed"]),
        default="reject",
        show_default=True,
        help="What becomes of texts without a character.",
    ),
    _option("--fail-fast", is_flag=True, help="End at the first row that cannot be embedded."),
    _option("--max-rejects", type=click.IntRange(0), metavar="N", help="End when more than N rows cannot be embedded."),
    _option(
        "--shard-rows",
        type=click.IntRange(1),
        metavar="N",
        help="Rows between two marks of progress, which an interruption may cost.",
    ),
    _option("--overwrite", is_flag=True, help="Replace an output that is there; forget an interrupted job."),
    _option(
        "--manifest",
        type=click.Path(path_type=Path),
        help="Path that the job's own files are named after; default: the output's.",
    ),
    _option("--dry-run", is_flag=True, help="Estimate time, size and cost from a sample; write nothing."),
    _option("--price-per-hour", type=click.FloatRange(0), metavar="PRICE", help="Of this machine: shows the cost."),
    _option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="This process, or a Ray cluster.",
    ),
    _option("--ray-address", metavar="ADDRESS", help="Of the cluster; default: RAY_ADDRESS, else one of its own."),
)


def bulk_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a bulk job; `run_bulk` takes them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def are_inputs(arguments: tuple[str, ...], query: str | None) -> bool:
    """Whether the arguments are files, folders, patterns, URLs or standard input, and not texts.

    Raises:
        click.UsageError: some are and some are not, or one is named like a file that is not there.
    """
    from lemni.bulk.sources.formats import format_of

    named = [query is not None or _is_input(argument) for argument in arguments]
    for argument, known in zip(arguments, named, strict=True):
        if not known and argument and not any(map(str.isspace, argument)) and format_of(argument) is not None:
            raise click.UsageError(f"{argument}: no such file (--literal takes the name itself as a text)")
    if any(named) and not all(named):
        other = arguments[named.index(False)]
        raise click.UsageError(f"{other!r} is no file, but other arguments are")
    return all(named)


def _is_input(argument: str) -> bool:
    if argument in ("", "-"):
        return argument == "-"
    try:
        return _URL in argument.partition(" ")[0] or Path(argument).exists() or bool(glob.glob(argument))
    except (OSError, ValueError):  # a long text is no valid name
        return False


def run_bulk(
    settings: Settings,
    arguments: tuple[str, ...],
    output: str,
    wanted: dict[str, Any],
    *,
    dry_run: bool,
    engine: str,
    ray_address: str | None,
    carry: str | None,
    id_column: str | None,
    output_format: str | None,
    **given: Any,
) -> None:
    """Run or estimate the job, and say what came of it on stderr.

    Args:
        wanted: of `lemni.bulk.embed`, beside `given`.

    Raises:
        LemniError: what `lemni.bulk.embed` raises.
        InvalidRequest: no row could be embedded.
    """
    import lemni.bulk

    wanted = {**wanted, **given, "id": id_column, "format": output_format}
    if carry is not None:
        wanted["carry"] = () if carry == "none" else tuple(name.strip() for name in carry.split(",") if name.strip())
    wanted = {name: value for name, value in wanted.items() if value is not None}
    wanted.update(model=model_of(settings), stdin=sys.stdin.buffer if "-" in arguments else None)
    try:
        if dry_run:
            tell_estimate(lemni.bulk.estimate(list(arguments), output, **wanted))
            return
        if engine == "ray":
            from lemni.distributed import embed as embed_on_ray

            done = embed_on_ray(list(arguments), output, ray_address=ray_address, **wanted)
        else:
            done = lemni.bulk.embed(list(arguments), output, **wanted)
    except TaskNotSupported as error:
        raise TaskNotSupported(f"{error.message}. {HINT}") from None
    if done.rejected and not done.written:
        raise InvalidRequest(f"none of the {done.rows} rows could be embedded; the reasons are in {done.rejects}")
    tell(done, settings.models[0].model)


def model_of(settings: Settings) -> Model:
    """The one model of the settings. Raises ConfigError where there are several."""
    from lemni.bulk.plan import Model

    if len(settings.models) > 1:
        names = ", ".join(model.served_name or model.model for model in settings.models)
        raise ConfigError(f"the settings name several models; choose one with --model: {names}")
    return Model(settings.models[0], settings.engine, settings.hub, settings.media)


def tell(done: Summary, model: str) -> None:
    """What a complete job says: always what was rejected or cut, the rest on a terminal only."""
    if not done.rows:
        click.echo(f"lemni: note: there were no rows, and {done.outputs[0]} is empty", err=True)
    if done.rejected:
        what = f"{done.rejected} of {done.rows} rows {_were(done.rejected)} rejected"
        click.echo(f"lemni: note: {what}; see {done.rejects}", err=True)
    if done.truncated:
        what = f"{done.truncated} of {done.rows} texts {_were(done.truncated)} cut to the model's length"
        click.echo(f"lemni: note: {what}; --truncate error rejects such texts", err=True)
    if not sys.stderr.isatty():
        return
    if not done.seconds:
        click.echo(f"{done.outputs[0]} was complete already: {done.written} rows; --overwrite makes it anew", err=True)
        return
    fresh = done.rows - done.resumed
    rate = f"{fresh / done.seconds:,.0f} rows/s" if done.seconds else ""
    earlier = f", {done.resumed} of them by an earlier run" if done.resumed else ""
    click.echo(
        f"{done.written} rows in {', '.join(done.outputs)}{earlier} ({done.seconds:.1f} s, {rate}, model {model})",
        err=True,
    )


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def tell_estimate(found: Estimate) -> None:
    about = "" if found.counted else "about "
    lines = [
        ("rows", f"{about}{found.rows:,}"),
        ("tokens", f"about {found.tokens:,}"),
        ("speed", f"{found.rows_per_s:,.1f} rows/s (measured on {found.sample} rows)"),
        ("time", f"about {_duration(found.seconds)}"),
        ("output", "in the store" if found.output_bytes is None else f"about {size(found.output_bytes)}"),
    ]
    if found.rejected:
        lines.append(("rejected", f"{found.rejected} of the {found.sample} rows"))
    if found.cost is not None:
        lines.append(("cost", f"about {found.cost:.2f}"))
    for name, value in lines:
        click.echo(f"{name:<9} {value}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
