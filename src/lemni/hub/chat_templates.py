"""The chat templates of a tokenizer's folder, as text; `lemni.tasks.templates` renders them.

Reference: transformers, `PreTrainedTokenizerBase.from_pretrained`: files win over `tokenizer_config.json`.
"""

from __future__ import annotations

import re
from pathlib import Path

from lemni.errors import ModelLoadError
from lemni.hub.jsonfile import read_json

_ROLES = ("query", "document")


def chat_templates(folder: Path) -> dict[str, str]:
    """Name to template; what has no name is "default". Empty without any.

    Raises:
        ModelLoadError: a file that cannot be read.
    """
    files = {"default": folder / "chat_template.jinja"}
    files |= {file.stem: file for file in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    found = {name: _text(file) for name, file in files.items() if file.is_file()}
    if found:
        return found
    config = folder / "tokenizer_config.json"
    listed = read_json(config).get("chat_template") if config.is_file() else None
    if isinstance(listed, str):
        return {"default": listed}
    entries = listed if isinstance(listed, list) else []
    return {str(entry["name"]): str(entry["template"]) for entry in entries if {"name", "template"} <= set(entry)}


def names_pair_roles(folder: Path) -> bool:
    """Whether the default template speaks of messages by "query" and by "document", as rerankers' templates do."""
    template = chat_templates(folder).get("default", "")
    return all(re.search(rf"""["']{role}["']""", template) for role in _ROLES)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelLoadError(f"{file}: cannot be read: {error}") from error
