"""Reads the texts of `lemni embed`: arguments, standard input, text files and JSON lines. Knows no model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import click

_JSON_LINES = (".jsonl", ".ndjson")
_TEXT = (".txt", ".md", ".text", *_JSON_LINES)
_NOT_TEXT = (".npy", ".npz", ".parquet", ".csv", ".json", ".gz", ".zip", ".zst", ".pdf", ".docx")


def read_texts(arguments: Iterable[str], stdin: BinaryIO, field: str, *, literal: bool) -> list[str]:
    """The texts that the arguments stand for, in their order.

    `-` stands for the lines of `stdin`, an existing file for its lines, and anything else for itself, but what looks
    like the name of a file must be one; with `literal` every argument stands for itself. Of a .jsonl file each line's
    `field` is read, and blank lines are skipped; of any other file an empty line is an empty text, so that vectors and
    lines stay in step.

    Raises:
        click.UsageError: a file that cannot be read as texts.
    """
    texts: list[str] = []
    for argument in arguments:
        if literal:
            texts.append(argument)
        elif argument == "-":
            texts += _lines("standard input", stdin.read())
        elif _is_file(argument):
            texts += _file(Path(argument), field)
        elif argument.endswith((*_TEXT, *_NOT_TEXT)) and not any(character.isspace() for character in argument):
            raise click.UsageError(f"{argument}: no such file (--literal embeds the name itself)")
        else:
            texts.append(argument)
    for number, text in enumerate(texts, 1):
        # Bytes of an argument that are not UTF-8, and lone \\ud800 in JSON, arrive as surrogates.
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise click.UsageError(f"text {number} is not valid Unicode: {text[:40]!r}")
    return texts


def _is_file(argument: str) -> bool:
    try:
        return Path(argument).is_file()
    except (OSError, ValueError):  # a long text is no valid name
        return False


def _file(path: Path, field: str) -> list[str]:
    kind = path.suffix.lower()
    if kind in _NOT_TEXT:
        raise click.UsageError(f"{path}: {kind} files cannot be read; give a text file or .jsonl (--literal: a text)")
    try:
        lines = _lines(str(path), path.read_bytes())
    except OSError as error:
        raise click.UsageError(f"{path}: cannot be read: {error.strerror}") from error
    if kind not in _JSON_LINES:
        return lines
    return [_json_text(f"{path}, line {n}", line, field) for n, line in enumerate(lines, 1) if line.strip()]


def _lines(where: str, content: bytes) -> list[str]:
    # Not str.splitlines, which would also cut at form feeds and Unicode separators inside a text.
    parts = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not parts[-1]:
        parts.pop()
    lines = []
    for number, part in enumerate(parts, 1):
        try:
            lines.append(part.removesuffix(b"\r").decode())
        except UnicodeDecodeError as error:
            raise click.UsageError(f"{where}, line {number}: is not UTF-8 at byte {error.start}") from error
    return lines


def _json_text(where: str, line: str, field: str) -> str:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise click.UsageError(f"{where}: is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise click.UsageError(f"{where}: is no JSON object, but {type(row).__name__}")
    if field not in row:
        names = ", ".join(map(repr, row)) or "no fields"
        raise click.UsageError(f"{where}: has no field {field!r} but {names} (--field names another)")
    if not isinstance(row[field], str):
        raise click.UsageError(f"{where}: field {field!r} is no text, but {type(row[field]).__name__}")
    text: str = row[field]
    return text
