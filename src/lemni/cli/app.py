"""The `lemni` command: its table of subcommands, and what becomes of an error.

A subcommand is one row and one file, imported when it is asked for. Every error becomes one line on stderr: exit code
2 if the user can mend it, 1 if it is our fault, 130 after Ctrl-C; the traceback is for --debug.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from importlib import import_module
from typing import Any, NoReturn

import click

from lemni import __version__
from lemni.cli.options import Session
from lemni.cli.settings import PREFIX, did_you_mean, is_true
from lemni.errors import InternalError, LemniError

COMMANDS = {
    "serve": "lemni.cli.serve:serve",
    "embed": "lemni.cli.embed:embed",
    "migrate": "lemni.cli.migrate:migrate",
    "rerank": "lemni.cli.rerank:rerank",
    "classify": "lemni.cli.classify:classify",
    "deploy": "lemni.cli.deploy:deploy",
    "infinity": "lemni.cli.infinity:infinity",
    "export": "lemni.cli.export:export",
    "pull": "lemni.cli.models:pull",
    "models": "lemni.cli.models:models",
    "quantize": "lemni.cli.quantize:quantize",
    "completion": "lemni.cli.completion:completion",
}

EPILOG = """\b
Examples:
  lemni serve                                  serve the default model on port 7997
  lemni serve ./my-model --device cuda         serve a folder on a GPU
  lemni embed "How do I reset my password?"    print the text and its vector
  lemni embed texts.txt -o vectors.npy         one vector per line of a file
  lemni rerank "Where do cats sleep?" -i notes.txt    the lines of a file by their relevance
  lemni classify texts.txt -m ./my-classifier  labels of every line
  lemni embed rows.parquet -o "qdrant://localhost:6333?collection=docs"   millions of texts into a store
  lemni migrate "chroma:./db?collection=docs" -m BAAI/bge-small-en-v1.5   a collection to another model
  lemni export ./my-model -o ./as-onnx         a model for other runtimes
  lemni quantize ./my-model                    size, speed and quality in fp32, fp16, bf16 and int8
  lemni models                                 what is in the caches
"""


class App(click.Group):
    """Imports a subcommand when it is asked for, and turns errors into a line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"no command {args[0]!r}{did_you_mean(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        session = Session(debug=is_true(os.environ.get(f"{PREFIX}DEBUG", "")))
        extra.update(standalone_mode=False, obj=session)
        try:
            # A number comes back from click when --help or --version ended the run.
            code = super().main(*args, **extra) or 0
            if sys.stdout is not None:  # closed by the caller: lemni ... >&-
                sys.stdout.flush()
        except Exception as error:
            code = _report(error, session)
        sys.exit(code)


def _report(error: Exception, session: Session) -> int:
    """Say what went wrong in one line; the exit code."""
    if isinstance(error, click.exceptions.Abort):
        return 130
    if isinstance(error, BrokenPipeError):
        # Nobody reads any more; what Python still holds back must not be tried at its exit.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if session.debug:
        traceback.print_exception(error)
    mendable = True
    if isinstance(error, click.ClickException):
        message = error.format_message()
        if isinstance(error, click.UsageError) and error.ctx is not None:
            end = "" if message.endswith((".", "?", ")")) else "."
            message += f"{end} Try '{error.ctx.command_path} --help'."
    elif isinstance(error, LemniError):
        message, mendable = error.message, not isinstance(error, InternalError)
    elif isinstance(error, OSError) and error.strerror:
        # A full disk, a folder that may not be written to.
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        message = f"unexpected {type(error).__name__}: {error}"
        message += "" if session.debug else " (--debug shows where)"
        mendable = False
    click.echo(f"lemni: error: {one_line(message)}", err=True)
    return 2 if mendable else 1


def one_line(message: str) -> str:
    """The message with its line breaks and list marks replaced by punctuation."""
    first, *rest = [line.strip() for line in message.splitlines() if line.strip()] or [""]
    text, listed = first.removeprefix("- "), False
    for number, line in enumerate(rest):
        item = line.startswith("- ")
        # What follows a list is a sentence of its own.
        mark = ";" if item or not listed else "."
        text += f"{mark if number else ''} {line.removeprefix('- ')}"
        listed = item
    return text


@click.group(
    cls=App,
    invoke_without_command=True,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, "-V", "--version", prog_name="lemni", message="%(prog)s %(version)s")
@click.pass_context
def app(ctx: click.Context) -> None:
    """Turn text, images and audio into vectors, scores and labels: serve models over HTTP, or use one right here."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> NoReturn:
    """Entry point of the `lemni` command."""
    app.main(prog_name="lemni")
