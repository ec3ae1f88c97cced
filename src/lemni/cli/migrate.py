"""`lemni migrate`: a vector store's collection into one of another model, verified, switched, and switched back."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lemni.cli.bulk import model_of
from lemni.cli.local import LEFT_OUT
from lemni.cli.options import SectionCommand, with_settings

if TYPE_CHECKING:
    from lemni.config import Settings
    from lemni.migrate import Migration, Outcome

EPILOG = """\b
Examples:
  lemni migrate "chroma:./data?collection=docs" --model BAAI/bge-small-en-v1.5 --dry-run
  lemni migrate "chroma:./data?collection=docs" --model BAAI/bge-small-en-v1.5
  lemni migrate "chroma:./data?collection=docs" --model BAAI/bge-small-en-v1.5 --rollback
  lemni migrate "chroma:./data?collection=docs" "postgresql://db/app?collection=docs" -m ./my-model
  lemni migrate rows.jsonl "qdrant://localhost:6333?collection=docs" --text body
"""

_FILE = click.Path(path_type=Path)
_FEW = click.IntRange(min=1)
_SHARE = click.FloatRange(0, 1)


@click.command(cls=SectionCommand, epilog=EPILOG)
@click.argument("source")
@click.argument("target", required=False)
@click.option("--text", metavar="FIELD", help="Field of the source that holds the texts; default: the store's own.")
@click.option("--id", metavar="COLUMN", help="Column of a file that names its rows; default: id, else their numbers.")
@click.option("--texts-from", type=_FILE, metavar="FILE", help="File with id and text, where a store has no texts.")
@click.option("--skip-missing", is_flag=True, help="Leave out entries without a text, instead of refusing to begin.")
@click.option("--batch", type=_FEW, metavar="N", help="Entries between two marks of progress.")
@click.option(
    "--task", type=click.Choice(["embed", "sparse", "multi_vector"]), help="Default: what the model is made for."
)
@click.option("--dimensions", type=_FEW, help="Keep the first N values and normalise again.")
@click.option("--input-type", type=click.Choice(["query", "document"]), default="document", show_default=True)
@click.option("--metric", type=click.Choice(["cosine", "dot", "l2"]), help="Default: what the model is made for.")
@click.option("--dry-run", is_flag=True, help="Describe both sides and estimate the time; write nothing.")
@click.option("--no-switch", is_flag=True, help="Write and verify only.")
@click.option("--alias", metavar="NAME", help="Name that is switched; default: the source's, within one store.")
@click.option("--drop-old", is_flag=True, help="Only remove the old collection; refuses unless verified and switched.")
@click.option("--verify-only", is_flag=True, help="Only compare both sides again.")
@click.option("--rollback", is_flag=True, help="Give the name back to the old collection.")
@click.option("--catch-up", is_flag=True, help="Embed only what the target lacks or has otherwise; delete nothing.")
@click.option("--dual-write", is_flag=True, help="Only print notes for a system that is written to meanwhile.")
@click.option("--overwrite", is_flag=True, help="Drop the target and begin anew.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before something is removed; needed without a terminal.")
@click.option(
    "--queries", type=_FILE, metavar="FILE", help="Judged queries: nDCG@10 and recall; BEIR's or Cranfield's."
)
@click.option("--qrels", type=_FILE, metavar="FILE", help="Their judgements.")
@click.option("--old-model", metavar="MODEL", help="Embeds the queries for the old side.")
@click.option(
    "--sample", type=_FEW, default=200, show_default=True, help="Entries that are compared and embedded again."
)
@click.option("--k", type=click.IntRange(0), default=10, show_default=True, help="Neighbours; 0 looks at none.")
@click.option("--min-cosine", type=_SHARE, default=0.9999, show_default=True, help="Of stored vectors and new ones.")
@click.option("--min-recall", type=_SHARE, default=0.9, show_default=True, help="Of the index against exact search.")
@click.option("--folder", type=_FILE, help="Of records, journal and report; default: migrate-STORE-OLD-to-NEW here.")
@click.option("--report", type=_FILE, help="Report, without an ending; default: report in that folder.")
@click.option("--price-per-hour", type=click.FloatRange(0), metavar="PRICE", help="Of this machine: --dry-run's cost.")
@click.option("--progress/--no-progress", default=None, help="Progress bar; default: on a terminal.")
@with_settings("Model", "Engine", "Hub", leave_out=LEFT_OUT)
def migrate(
    settings: Settings,
    source: str,
    target: str | None,
    dry_run: bool,
    no_switch: bool,
    verify_only: bool,
    rollback: bool,
    yes: bool,
    sample: int,
    k: int,
    min_cosine: float,
    min_recall: float,
    **given: Any,
) -> None:
    """Embed a collection anew with another model, verify it, and switch to it.

    SOURCE is the address of a collection in a vector store, or a file. TARGET is the new collection's; without it the
    same store gets a collection OLD__MODEL. Killed at any moment, the same command goes on. Exit code 1 says that the
    verification failed, or that a store was lost in the middle.
    """
    from lemni.migrate import How, Limits, Migration
    from lemni.migrate.connection import StoreLost
    from lemni.migrate.report import add_live, live

    context = click.get_current_context()
    if sum((dry_run, verify_only, rollback, given["drop_old"], given["dual_write"])) > 1:
        raise click.UsageError(
            "--dry-run, --verify-only, --rollback, --drop-old and --dual-write are commands of their own: choose one"
        )
    _check_model(settings, context)
    limits = Limits(sample, k, min_cosine=min_cosine, min_recall=min_recall)
    prompt_name = settings.models[0].prompt_name
    how = How(switch=not no_switch, limits=limits, prompt_name=prompt_name, **given)
    migration = Migration(source, target, model_of(settings), how, lambda line: click.echo(line, err=True))
    try:
        if dry_run:
            _tell_estimate(migration)
            return
        if how.dual_write:
            click.echo("\n".join(live(migration.outcome(), how)))
            add_live(migration.outcome(), how)
            return
        outcome = _run(migration, verify_only=verify_only, rollback=rollback, yes=yes)
    except StoreLost as error:
        again = "what was written is kept: give the same command again when the store answers"
        click.echo(f"lemni: error: {error.message.rstrip('.')}; {again}", err=True)
        context.exit(1)
    except KeyboardInterrupt:
        click.echo("lemni: interrupted; the same command goes on", err=True)
        context.exit(130)
    _tell(outcome, how)
    if not outcome.ok:
        context.exit(1)


def _check_model(settings: Settings, context: click.Context) -> None:
    """Raises UsageError where nobody has said which model: a default would be chosen by accident."""
    from lemni.config import DEFAULT_MODEL

    given = context.params.get("model") or os.environ.get("LEMNI_MODEL") or os.environ.get("LEMNI_MODELS")
    if not given and settings.models[0].model == DEFAULT_MODEL:
        raise click.UsageError("name the new model with --model (or LEMNI_MODEL)")


def _run(migration: Migration, *, verify_only: bool, rollback: bool, yes: bool) -> Outcome:
    if rollback:
        return migration.roll_back()
    if verify_only:
        return migration.verify()
    if migration.how.drop_old:
        place, phase = migration.check_drop(), migration.state.phase
        if not yes and phase != "dropped":
            unread = "" if phase == "switched" else ". It was not switched: whoever asks for it will find nothing"
            _ask(f"Remove {place} for good{unread}?", "--drop-old")
        return migration.drop_old()
    if migration.how.overwrite and not yes:
        _ask(f"Drop {migration.places.target} and begin anew?", "--overwrite")
    return migration.run()


def _ask(question: str, option: str) -> None:
    """Raises ConfigError where nobody can be asked, click.Abort for a no."""
    from lemni.errors import ConfigError

    if not sys.stdin.isatty():
        raise ConfigError(f"{option} asks before it removes something, and here is no terminal: --yes says it is meant")
    click.confirm(question, abort=True, err=True)


def _tell(outcome: Outcome, how: Any) -> None:
    """The verdict on stdout, one check a line."""
    from lemni.migrate.report import commands, subject, verdict, write_report

    words = {True: "ok", False: "FAILED", None: "--"}
    checks = () if outcome.verification is None else outcome.verification.checks
    for check in checks:
        wanted = f" (wanted: {check.wanted})" if check.wanted else ""
        click.echo(f"{words[check.passed]:<7}{check.name}: {check.found}{wanted}")
    files = write_report(outcome, how)
    click.echo(f"{subject(outcome)}: {verdict(outcome)}")
    click.echo(f"report: {', '.join(map(str, files))}")
    if sys.stderr.isatty():
        for what, line in commands(outcome, how):
            click.echo(f"{what}:\n  {line}", err=True)


def _tell_estimate(migration: Migration) -> None:
    from lemni.cli.bulk import tell_estimate

    found, expected = migration.estimate()
    for line in found.lines(migration.places.source_name, str(migration.places.target)):
        click.echo(line)
    tell_estimate(expected)
