"""Reads the texts of a command: arguments, standard input, text files, JSON lines and lists. Knows no model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import click

_JSON_LINES = (".jsonl", ".ndjson")
_TEXT = (".txt", ".md", ".text", ".json", *_JSON_LINES)
_NOT_TEXT = (".npy", ".npz", ".parquet", ".csv", ".gz", ".zip", ".zst", ".pdf", ".docx")
_PAIR = "text_pair"


class Given(NamedTuple):
    """One text, the `id` that stands beside it in a file, and, where pairs are read, its `text_pair`."""

    text: str
    id: Any = None
    pair: str | None = None


def read_texts(
    arguments: Iterable[str],
    stdin: BinaryIO,
    field: str,
    *,
    literal: bool,
    inputs: Iterable[str] = (),
    pairs: bool = False,
) -> list[Given]:
    """The texts that the arguments and after them the inputs stand for, in their order.

    `-` stands for the lines of `stdin`, an existing file for its lines, and anything else for itself, but what looks
    like the name of a file must be one; with `literal` every argument stands for itself. An input is always a file or
    `-`. Of a .jsonl file each line's `field` is read, and blank lines are skipped; a .json file is a list of texts or
    of such objects; of any other file an empty line is an empty text, so that vectors and lines stay in step.

    Args:
        pairs: read the field `text_pair` of objects, if they have it.

    Raises:
        click.UsageError: a file that cannot be read as texts.
    """
    texts: list[Given] = []
    for argument in arguments:
        if literal:
            texts.append(Given(argument))
        elif argument == "-":
            texts += _lines("standard input", stdin.read())
        elif _is_file(argument):
            texts += _file(Path(argument), field, pairs=pairs)
        elif argument.endswith((*_TEXT, *_NOT_TEXT)) and not any(character.isspace() for character in argument):
            raise click.UsageError(f"{argument}: no such file (--literal takes the name itself as a text)")
        else:
            texts.append(Given(argument))
    for name in inputs:
        if name == "-":
            texts += _lines("standard input", stdin.read())
        else:
            texts += _file(Path(name), field, pairs=pairs)
    for number, given in enumerate(texts, 1):
        for text in (given.text, given.pair or ""):
            # Bytes of an argument that are not UTF-8, and lone \\ud800 in JSON, arrive as surrogates.
            if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
                raise click.UsageError(f"text {number} is not valid Unicode: {text[:40]!r}")
    return texts


def _is_file(argument: str) -> bool:
    try:
        return Path(argument).is_file()
    except (OSError, ValueError):  # a long text is no valid name
        return False


def _file(path: Path, field: str, *, pairs: bool) -> list[Given]:
    kind = path.suffix.lower()
    if kind in _NOT_TEXT:
        raise click.UsageError(
            f"{path}: {kind} files cannot be read; give a text file, .jsonl or .json (--literal: a text)"
        )
    try:
        lines = _lines(str(path), path.read_bytes())
    except OSError as error:
        raise click.UsageError(f"{path}: cannot be read: {error.strerror}") from error
    if kind in _JSON_LINES:
        rows = [(f"{path}, line {n}", line.text) for n, line in enumerate(lines, 1) if line.text.strip()]
        return [_of_object(where, _json(where, line), field, pairs=pairs) for where, line in rows]
    if kind == ".json":
        listed = _json(str(path), "\n".join(line.text for line in lines))
        if not isinstance(listed, list):
            raise click.UsageError(f"{path}: is no JSON list, but {type(listed).__name__}")
        return [
            Given(entry) if isinstance(entry, str) else _of_object(f"{path}, item {n}", entry, field, pairs=pairs)
            for n, entry in enumerate(listed, 1)
        ]
    return lines


def _lines(where: str, content: bytes) -> list[Given]:
    # Not str.splitlines, which would also cut at form feeds and Unicode separators inside a text.
    parts = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not parts[-1]:
        parts.pop()
    lines = []
    for number, part in enumerate(parts, 1):
        try:
            lines.append(Given(part.removesuffix(b"\r").decode()))
        except UnicodeDecodeError as error:
            raise click.UsageError(f"{where}, line {number}: is not UTF-8 at byte {error.start}") from error
    return lines


def _json(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{where}: is not JSON: {error}") from error


def _of_object(where: str, row: Any, field: str, *, pairs: bool) -> Given:
    if not isinstance(row, dict):
        raise click.UsageError(f"{where}: is no JSON object, but {type(row).__name__}")
    if field not in row:
        names = ", ".join(map(repr, row)) or "no fields"
        raise click.UsageError(f"{where}: has no field {field!r} but {names} (--field names another)")
    pair = row.get(_PAIR) if pairs else None
    for name, value in ((field, row[field]), (_PAIR, "" if pair is None else pair)):
        if not isinstance(value, str):
            raise click.UsageError(f"{where}: field {name!r} is no text, but {type(value).__name__}")
    return Given(row[field], row.get("id"), pair)
