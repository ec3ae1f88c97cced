"""Options of a command from the fields of its settings: name, type, description, default and variable are said once.

`with_settings` is the decorator that every command uses: it adds the options, reads all sources and hands the command
one `Settings`. Values are checked in `settings`, so that a flag and a variable get the same answer.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lemni.cli.completion import complete_model
from lemni.cli.settings import DOTENV, PREFIX, load_settings
from lemni.config import EngineSettings, HubSettings, MediaSettings, ModelSettings, ServerSettings, Settings

SECTIONS: dict[str, type[BaseModel]] = {
    "Model": ModelSettings,
    "Engine": EngineSettings,
    "Server": ServerSettings,
    "Hub": HubSettings,
    "Media": MediaSettings,
}
# What a field's option has beyond what its type says.
_SHORT_FLAGS = {"model": "-m"}
_COMPLETIONS = {"model": complete_model}


@dataclass
class Session:
    """What the command line knows about itself before and after the settings are read; click's `ctx.obj`."""

    debug: bool = False


class SectionOption(click.Option):
    """An option under a heading of --help."""

    def __init__(self, declarations: list[str], section: str, **rest: Any) -> None:
        super().__init__(declarations, **rest)
        self.section = section


class SectionCommand(click.Command):
    """A command whose --help groups its options by heading; one of its own comes after the first."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if isinstance(param, click.Option) and record is not None:
                title = "General" if param.name == "help" else getattr(param, "section", "Options")
                sections.setdefault(title, []).append(record)
        last = (*SECTIONS, "General")
        for title in sorted(sections, key=lambda title: last.index(title) if title in last else -1):
            if sections[title]:
                with formatter.section(title):
                    formatter.write_dl(sections[title])


class PrecisionChoice(click.Choice[str]):
    """Takes a precision by any of its names, in any case, and gives the one of its choices."""

    _NAMES = (("float32", "fp32"), ("float16", "fp16", "half"), ("bfloat16", "bf16"))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        given = str(value).lower()
        same = next((names for names in self._NAMES if given in names), (given,))
        known = next((name for name in same if name in self.choices), given)
        return super().convert(known, param, ctx)


class _Choice(click.Choice[str]):
    """Shows and completes the choices, and leaves the checking to the settings."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value


def with_settings(
    *sections: str, leave_out: tuple[str, ...] = (), plain: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of these sections (keys of `SECTIONS`) and, as its first argument, the `Settings`.

    A command's own parameters called `models` or `model` are handed to the settings; all others to the command.
    `plain`: variables without the prefix count too.
    """
    fields = {
        name: _option(name, info, title)
        for title in sections
        for name, info in SECTIONS[title].model_fields.items()
        if name not in leave_out
    }
    if "log_level" not in fields:
        fields["log_level"] = _option("log_level", ServerSettings.model_fields["log_level"], "General")

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(*, config: str | None, debug: bool | None, **params: Any) -> None:
            flags: dict[str, Any] = {name: params.pop(name) for name in fields}
            if "models" in params:
                flags["models"] = params.pop("models")
            settings = load_settings(
                {**flags, "debug": debug or None},
                os.environ,
                DOTENV,
                None if config is None else Path(config),
                plain=plain,
            )
            click.get_current_context().ensure_object(Session).debug = settings.debug
            _start_logging(settings, quiet="Server" not in sections)
            command(settings, **params)

        for option in reversed((*fields.values(), _config_option(), _debug_option())):
            _attach(run, option)
        return run

    return decorate


def _start_logging(settings: Settings, *, quiet: bool) -> None:
    """Log to stderr. A command that prints its result says only what is wrong, unless a level was asked for."""
    asked = "log_level" in settings.server.model_fields_set
    level = "warning" if quiet and not asked else settings.server.log_level
    logging.basicConfig(level=level.upper(), format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    if level != "debug":
        for client in ("httpx", "httpx2"):  # a line for every request of a download
            logging.getLogger(client).setLevel(logging.WARNING)


def _option(name: str, info: FieldInfo, section: str) -> click.Option:
    flag = "--" + name.replace("_", "-")
    declaration = f"{flag}/--no-{flag[2:]}" if info.annotation is bool else flag
    default = "" if info.default is None else f"; default: {_shown(info.default)}"
    return SectionOption(
        [*([_SHORT_FLAGS[name]] if name in _SHORT_FLAGS else []), declaration, name],
        section=section,
        default=None,
        shell_complete=_COMPLETIONS.get(name),
        help=f"{info.description}  [env: {PREFIX}{name.upper()}{default}]",
        **_kind(info),
    )


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    return f"{default:g}" if isinstance(default, float) else str(default)


def _kind(info: FieldInfo) -> dict[str, Any]:
    """What click has to know about a field's type: its choices, its completion, its name in --help."""
    annotation: Any = info.annotation
    if get_origin(annotation) is not Literal and get_args(annotation):
        annotation = next(kind for kind in get_args(annotation) if kind is not NoneType)
    if annotation is bool:
        return {}
    if get_origin(annotation) is Literal:
        return {"type": _Choice(get_args(annotation))}
    if annotation is Path:
        return {"type": click.Path()}
    return {"type": str, "metavar": {int: "INTEGER", float: "NUMBER"}.get(annotation, "TEXT")}


def _config_option() -> click.Option:
    return SectionOption(
        ["-c", "--config"],
        section="General",
        type=click.Path(),
        help=f"YAML file with any of the settings and a list of models.  [env: {PREFIX}CONFIG]",
    )


def _debug_option() -> click.Option:
    def remember(ctx: click.Context, _: click.Parameter, value: bool | None) -> bool | None:
        # At once, so that a mistake in the settings is shown with its traceback as well.
        ctx.ensure_object(Session).debug |= bool(value)
        return value

    return SectionOption(
        ["--debug"],
        section="General",
        is_flag=True,
        is_eager=True,
        callback=remember,
        help=f"Show the traceback of an error.  [env: {PREFIX}DEBUG]",
    )


def _attach(command: Any, option: click.Option) -> None:
    # What click.option does with an option that is made already.
    command.__click_params__ = [*getattr(command, "__click_params__", []), option]
