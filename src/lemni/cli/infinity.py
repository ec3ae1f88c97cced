"""`lemni infinity v2`: takes the flags and INFINITY_ variables of `infinity_emb v2` (0.0.78) and serves with Lemni.

Flags that choose how Infinity computes and that mean nothing here are taken and named in the log; whatever cannot be
honoured and would change answers is an error. Lists follow Infinity's rule: one value for all models, or one for each.
As before Infinity's v2, that word may be left out, and --model-name-or-path is --model-id.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import click

from lemni.errors import ConfigError

logger = logging.getLogger("lemni.infinity")

DEFAULT_MODEL = "michaelfeil/bge-small-en-v1.5"
_TRUE = ("true", "t", "1", "yes", "y")

# Options that may be given once per model: flag -> whether it is a switch.
_PER_MODEL = {
    "model-id": False,
    "served-model-name": False,
    "batch-size": False,
    "revision": False,
    "trust-remote-code": True,
    "engine": False,
    "model-warmup": True,
    "vector-disk-cache": True,
    "device": False,
    "device-id": False,
    "lengths-via-tokenize": True,
    "dtype": False,
    "embedding-dtype": False,
    "pooling-method": False,
    "compile": True,
    "bettertransformer": True,
    "onnx-disable-optimize": True,
    "onnx-do-not-prefer-quantized": True,
}
_ONCE = {
    "preload-only": True,
    "host": False,
    "port": False,
    "url-prefix": False,
    "redirect-slash": False,
    "log-level": False,
    "permissive-cors": True,
    "api-key": False,
    "proxy-root-path": False,
}
# What decides only how Infinity itself computes.
_IRRELEVANT = (
    "batch-size",
    "model-warmup",
    "lengths-via-tokenize",
    "vector-disk-cache",
    "compile",
    "bettertransformer",
    "onnx-disable-optimize",
    "onnx-do-not-prefer-quantized",
)
_ENGINES = {"torch": "auto", "optimum": "auto", "ctranslate2": "auto"}
_LEVELS = {"trace": "debug"}
_OLDER_NAMES = {"model-id": ("--model-name-or-path",)}


def _options(command: Any) -> Any:
    for name, switch in reversed({**_PER_MODEL, **_ONCE}.items()):
        declaration = f"--{name}/--no-{name}" if switch else f"--{name}"
        variable = f"INFINITY_{name.upper().replace('-', '_')}"
        many = name in _PER_MODEL
        option = click.option(
            declaration,
            *_OLDER_NAMES.get(name, ()),
            name.replace("-", "_"),
            multiple=many,
            default=None,
            type=bool if switch else str,
            help=f"As of infinity_emb v2.  [env: {variable}]",
        )
        command = option(command)
    return command


class _V2Unsaid(click.Group):
    """Takes what names no command as flags of v2."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in self.get_help_option_names(ctx)):
            args = ["v2", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_V2Unsaid)
def infinity() -> None:
    """Stand in for infinity_emb: the same flags and variables, served by Lemni. The word v2 may be left out."""


@infinity.command(name="v2")
@_options
def v2(**flags: Any) -> None:
    """Serve models with the flags of `infinity_emb v2`."""
    from pydantic import ValidationError

    from lemni.config import Settings
    from lemni.server import serve

    logging.basicConfig(level="INFO", format="%(levelname)s %(name)s: %(message)s")
    content = settings_of(flags, os.environ)
    preload_only = content.pop("preload_only")
    try:
        settings = Settings.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][-1]).replace("_", "-")
        raise ConfigError(f"--{name}: {first['input']!r} is not allowed: {first['msg']}") from error
    logging.getLogger().setLevel(settings.server.log_level.upper())
    if settings.server.host in ("0.0.0.0", "::") and settings.server.api_key is None:
        logger.warning("listening on every interface without --api-key, as infinity_emb does: everybody may ask")
    if preload_only:
        from lemni.server.models import load_models

        load_models(settings).close()
        return
    serve(settings)


def settings_of(flags: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """The content of `Settings`, and `preload_only`.

    Raises:
        ConfigError: a list of another length than that of the models, or something that Lemni does not have.
    """
    given = {name: _values(name, switch, flags, environ) for name, switch in {**_PER_MODEL, **_ONCE}.items()}
    ids = given["model-id"] or [DEFAULT_MODEL]
    each = {name: _spread(name, given[name], len(ids)) for name in _PER_MODEL if name != "model-id"}
    for name in _IRRELEVANT:
        if given[name]:
            logger.info("--%s is Infinity's own business and has no effect here", name)
    one = {name: values[-1] if (values := given[name]) else None for name in _ONCE}
    if one["redirect-slash"] not in (None, "/docs"):
        logger.info("--redirect-slash has no effect here: / tells what this server is")
    level = str(one["log-level"] or "info")
    server = {
        "host": one["host"] or "0.0.0.0",
        "port": one["port"] or 7997,
        "api_key": one["api-key"] or None,
        "url_prefix": _prefix(one["url-prefix"] or one["proxy-root-path"] or ""),
        "log_level": _LEVELS.get(level, level),
        "cors_origins": ("*",) if one["permissive-cors"] else None,
        "max_items": environ.get("INFINITY_MAX_CLIENT_BATCH_SIZE") or 2048,
        "any_model_name": True,
        "prefer": "infinity",
    }
    return {
        "models": [_model(ids[n], {name: values[n] for name, values in each.items()}) for n in range(len(ids))],
        "server": server,
        "preload_only": bool(one["preload-only"]),
    }


def _values(name: str, switch: bool, flags: Mapping[str, Any], environ: Mapping[str, str]) -> list[Any]:
    flag = flags.get(name.replace("-", "_"))
    if flag is not None and flag != ():
        return list(flag) if name in _PER_MODEL else [flag]
    text = environ.get(f"INFINITY_{name.upper().replace('-', '_')}", "")
    parts = [part.strip() for part in text.split(";")] if name in _PER_MODEL else [text.strip()]
    parts = [part for part in parts if part]
    return [part.lower() in _TRUE for part in parts] if switch else list(parts)


def _spread(name: str, values: Sequence[Any], models: int) -> list[Any]:
    if not values:
        return [None] * models
    if len(values) not in (1, models):
        raise ConfigError(f"--{name} is given {len(values)} times for {models} models: once for all, or once for each")
    return list(values) * models if len(values) == 1 else list(values)


def _model(model_id: str, each: Mapping[str, Any]) -> dict[str, Any]:
    engine = each["engine"] or "torch"
    if engine not in _ENGINES:
        raise ConfigError(f"--engine {engine} is not here; torch, optimum and ctranslate2 mean Lemni's own runtimes")
    if (each["embedding-dtype"] or "float32") != "float32":
        raise ConfigError(
            f"--embedding-dtype {each['embedding-dtype']}: Lemni chooses the output type by request, not by server "
            "(encodings of the Cohere, Voyage and Mixedbread APIs)"
        )
    pooling = each["pooling-method"]
    return {
        "model": model_id,
        # Infinity's rule: the last two parts of a path or id.
        "served_name": each["served-model-name"] or "/".join(model_id.rstrip("/").split("/")[-2:]),
        "revision": each["revision"] or None,
        "runtime": _ENGINES[engine],
        "device": _device(each["device"], each["device-id"]),
        "dtype": each["dtype"] or "auto",
        "pooling": None if pooling in (None, "auto") else pooling,
        # Infinity trusts every model's code unless told not to; Lemni only when told to.
        "trust_remote_code": bool(each["trust-remote-code"]),
    }


def _device(device: str | None, numbers: str | None) -> str:
    device = device or "auto"
    if device in ("mps", "tensorrt", "xla"):
        raise ConfigError(f"--device {device} is not here: auto, cpu or cuda")
    if numbers and device in ("auto", "cuda"):
        return ",".join(f"cuda:{number.strip()}" for number in numbers.split(",") if number.strip())
    return device


def _prefix(text: str) -> str | None:
    if not text:
        return None
    if not text.startswith("/") or text.endswith("/"):
        raise ConfigError(f"--url-prefix is {text!r}: it must start with / and not end with it")
    return text
