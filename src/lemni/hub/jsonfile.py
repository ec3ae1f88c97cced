"""Reads the JSON files of a model folder; a broken one is an error that names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lemni.errors import ModelLoadError


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises ModelLoadError that names the file and the place."""
    value = read_json_value(path)
    if not isinstance(value, dict):
        raise ModelLoadError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def read_json_value(path: Path) -> Any:
    """Any JSON value from a file. Raises ModelLoadError that names the file and the place."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelLoadError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path}: not valid JSON: {error}") from error
