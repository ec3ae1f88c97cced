"""Builds `Settings` from its sources: flag > environment > .env > YAML file > plain variables > default, by field.

The one place where the sources meet; every command calls `load_settings` once. What a source says that is not
known or not allowed is a `ConfigError` that names the source, the value and what would be right. The YAML file is
flat: every field by its name, plus `models:`, a list of names or of mappings of model fields.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from lemni.cli.plain_variables import plain_values
from lemni.config import (
    DEFAULT_MODEL,
    EngineSettings,
    HubSettings,
    MediaSettings,
    ModelSettings,
    ServerSettings,
    Settings,
)
from lemni.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

PREFIX = "LEMNI_"
DOTENV = Path(".env")
"""Read in the working directory, as other programs do."""

_MODEL_FIELDS = tuple(ModelSettings.model_fields)
_COMMON_SECTIONS = (EngineSettings, ServerSettings, HubSettings, MediaSettings)
_COMMON_FIELDS = (*(name for section in _COMMON_SECTIONS for name in section.model_fields), "debug")
_FILE_FIELDS = ("models", *_MODEL_FIELDS, *_COMMON_FIELDS)
_VARIABLES = ("config", *_FILE_FIELDS)
_SECRETS = tuple(name for section in _COMMON_SECTIONS for name, info in section.model_fields.items() if not info.repr)
# Kubernetes puts these into every container when a service is called lemni.
_SERVICE_LINK = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")

_Section = TypeVar("_Section", bound=BaseModel)


@dataclass(frozen=True)
class _Given:
    """A value, and the words for where it was given, such as "--port" or "lemni.yaml: models[1].dtype"."""

    value: Any
    origin: str


_Values = dict[str, _Given]


@dataclass
class _Layer:
    """What one source says. `models` is None if it names no model."""

    values: _Values = field(default_factory=dict)
    models: list[_Values] | None = None


def load_settings(
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    dotenv: Path | None = None,
    yaml: Path | None = None,
    *,
    plain: bool = False,
) -> Settings:
    """Merge the sources and check them.

    Args:
        flags: field name to value as given on the command line; None and an empty tuple mean not given.
            `models` is a tuple of names.
        environ: variables; only those that start with LEMNI_ and XDG_CACHE_HOME are looked at. An empty one counts
            as not set.
        dotenv: a .env file; one that does not exist is an empty one.
        yaml: a configuration file; if None, the one that LEMNI_CONFIG names.
        plain: look at variables without the prefix too; see `plain_variables`.

    Options of a model given by flag or variable hold for all models. A model that a flag or variable names and the
    file describes keeps what the file says about it.

    Raises:
        ConfigError: an unknown key, a bad value, an unreadable file.
    """
    upper = [_from_flags(flags), _from_variables(environ, "")]
    dotted = _read_dotenv(dotenv) if dotenv is not None and dotenv.is_file() else {}
    upper.append(_from_variables(dotted, f"{dotenv}: "))
    config = [layer.values.pop("config") for layer in upper if "config" in layer.values]
    if yaml is None and config:
        yaml = Path(config[0].value)
    file = _Layer() if yaml is None else _from_yaml(yaml)

    lowest = {k: _Given(*given) for k, given in plain_values({**dotted, **environ}).items()} if plain else {}
    named = lowest.pop("model", _Given(DEFAULT_MODEL, "default"))
    values = {**lowest, **file.values}
    for layer in reversed(upper):
        values.update(layer.values)
    models = [
        # The file's general model fields are under those of its entry, all others above.
        {**_only({**lowest, **file.values}, _MODEL_FIELDS), **entry, **_overrides(upper)}
        for entry in _chosen_models(upper, file, named)
    ]
    xdg = environ.get("XDG_CACHE_HOME", "")
    if "cache_dir" not in values and Path(xdg).is_absolute():
        values["cache_dir"] = _Given(Path(xdg) / "lemni", "XDG_CACHE_HOME")
    try:
        return Settings(
            models=tuple(_check(ModelSettings, model) for model in models),
            engine=_check(EngineSettings, values),
            server=_check(ServerSettings, values),
            hub=_check(HubSettings, values),
            media=_check(MediaSettings, values),
            **{name: given.value for name, given in values.items() if name == "debug"},
        )
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(detail, values) for detail in error.errors())) from error


def is_true(text: str) -> bool:
    """Whether a variable's text switches something on; for LEMNI_DEBUG before the settings are read."""
    return text.strip().lower() in ("1", "true", "yes", "on", "t", "y")


def _from_flags(flags: Mapping[str, Any]) -> _Layer:
    _refuse_unknown(flags, _VARIABLES, "flag ")
    layer = _Layer()
    for name, value in flags.items():
        if value is None or value == ():
            continue
        if name == "models":
            layer.models = [{"model": _Given(model, "MODEL")} for model in value]
        elif name == "model":
            layer.models = [{"model": _Given(value, "--model")}]
        else:
            layer.values[name] = _Given(value, "--" + name.replace("_", "-"))
    return layer


def _from_variables(variables: Mapping[str, str | None], where: str) -> _Layer:
    layer = _Layer()
    known = [PREFIX + name.upper() for name in _VARIABLES]
    for key, text in variables.items():
        if not key.startswith(PREFIX) or not text or _is_service_link(key, text):
            continue
        if key not in known:
            raise ConfigError(f"{where}{key}: unknown variable{did_you_mean(key, known)}")
        name = key.removeprefix(PREFIX).lower()
        given = _Given(text, where + key)
        if name in ("model", "models"):
            if layer.models is not None:
                raise ConfigError(f"{where}LEMNI_MODEL and LEMNI_MODELS are both set; use one of them")
            names = [text] if name == "model" else [part.strip() for part in text.split(",") if part.strip()]
            layer.models = [{"model": _Given(part, given.origin)} for part in names]
        else:
            layer.values[name] = given
    return layer


def _is_service_link(key: str, text: str) -> bool:
    return bool(_SERVICE_LINK.fullmatch(key) or (key.endswith("_PORT") and _SERVICE_ADDRESS.match(text)))


def _read_dotenv(path: Path) -> Mapping[str, str | None]:
    from dotenv.parser import parse_stream

    try:
        with path.open(encoding="utf-8") as file:
            bindings = list(parse_stream(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    for binding in bindings:
        if binding.error and "LEMNI_" in binding.original.string:  # other programs' lines are not our business
            # Its value is not shown: it may be a key.
            name = re.search(r"LEMNI_\w*", binding.original.string)
            shown = f"{name[0] if name else PREFIX} (is a quote left open?)"
            raise ConfigError(f"{path}: line {binding.original.line} cannot be read: {shown}")
    return {binding.key: binding.value for binding in bindings if binding.key is not None}


def _from_yaml(path: Path) -> _Layer:
    from lemni.cli.yamlfile import read_mapping

    content = read_mapping(path)
    where = f"{path}: "
    _refuse_unknown(content, _FILE_FIELDS, where)
    layer = _Layer({name: _Given(value, where + name) for name, value in content.items()})
    models, model = layer.values.pop("models", None), layer.values.pop("model", None)
    if models is not None and model is not None:
        raise ConfigError(f"{path}: has both model and models; use one of them")
    if model is not None:
        layer.models = [{"model": model}]
    if models is not None:
        if not isinstance(models.value, list) or not models.value:
            raise ConfigError(
                f"{models.origin}: {models.value!r} is not allowed: must be a list with at least one model"
            )
        layer.models = [_yaml_model(entry, f"{models.origin}[{i}]") for i, entry in enumerate(models.value)]
    return layer


def _yaml_model(entry: Any, where: str) -> _Values:
    if isinstance(entry, str):
        return {"model": _Given(entry, where)}
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: {entry!r} is not allowed: must be a model's name or a mapping with the key model")
    _refuse_unknown(entry, _MODEL_FIELDS, f"{where}.")
    if "model" not in entry:
        raise ConfigError(f"{where}: the key model is missing")
    return {name: _Given(value, f"{where}.{name}") for name, value in entry.items()}


def _refuse_unknown(content: Mapping[Any, Any], known: Iterable[str], where: str) -> None:
    names = list(known)
    for key in content:
        if key not in names:
            raise ConfigError(f"{where}{key}: unknown key{did_you_mean(str(key), names)}")


def _chosen_models(upper: list[_Layer], file: _Layer, otherwise: _Given) -> list[_Values]:
    """The models that the highest source names, with what the file says about them."""
    described = file.models or []
    named = next((layer.models for layer in upper if layer.models is not None), None)
    if named is None:
        return described or [{"model": otherwise}]
    return [next((entry for entry in described if _is_called(entry, name["model"].value)), name) for name in named]


def _is_called(entry: _Values, name: str) -> bool:
    return name in (entry["model"].value, entry["served_name"].value if "served_name" in entry else None)


def _overrides(upper: list[_Layer]) -> _Values:
    merged: _Values = {}
    for layer in reversed(upper):
        merged.update(_only(layer.values, _MODEL_FIELDS))
    return merged


def _only(values: _Values, names: Iterable[str]) -> _Values:
    return {name: values[name] for name in names if name in values}


def _check(section: type[_Section], values: _Values) -> _Section:
    own = _only(values, section.model_fields)
    try:
        return section.model_validate({name: given.value for name, given in own.items()})
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(detail, own) for detail in error.errors())) from error


def _explain(detail: ErrorDetails, values: _Values) -> str:
    name = str(detail["loc"][0]) if detail["loc"] else ""
    reason = detail["msg"].removeprefix("Value error, ")
    if name not in values:
        return reason
    shown = "the value" if name in _SECRETS else repr(values[name].value)
    must = re.sub(r"^(Input|String) should ", "must ", reason)
    return f"{values[name].origin}: {shown} is not allowed: {must}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
