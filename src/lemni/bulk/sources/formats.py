"""What the ending of a file says of its format."""

from __future__ import annotations

import os

from lemni.bulk.sources.files import COMPRESSIONS, bare, shown
from lemni.errors import InvalidRequest

ENDINGS = {
    ".txt": "txt",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".ipc": "arrow",
    ".feather": "arrow",
    ".lance": "lance",
    **dict.fromkeys((".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"), "images"),
}
# What a person may write for `format` beside those names.
WORDS = {"text": "txt", "ndjson": "jsonl", "feather": "arrow", "ipc": "arrow"}
COMPRESSIBLE = ("txt", "jsonl", "json", "csv", "tsv")
# Taken in a folder only if nothing else is there: they are often notes on the data.
LIKE_TXT = (".md", ".markdown", ".text", ".log", ".rst")
# Endings that are certainly no lines of text, whatever their first bytes look like.
# fmt: off
_BINARY = {
    ".pdf", ".doc", ".docx", ".odt", ".rtf", ".ppt", ".pptx", ".xls", ".xlsx", ".ods", ".epub", ".npy",
    ".npz", ".safetensors", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".onnx", ".gguf", ".h5", ".hdf5",
    ".zip", ".tar", ".tgz", ".7z", ".rar", ".db", ".sqlite", ".sqlite3", ".duckdb", ".avro", ".orc", ".faiss",
    ".index", ".mp3", ".wav", ".flac", ".ogg", ".mp4", ".mov", ".mkv", ".avi", ".exe", ".so", ".dll", ".pyc",
    ".whl", ".lz4", ".br",
}
# fmt: on
KNOWN = "txt, jsonl, json, csv, tsv, parquet, arrow, datasets, lance, images"


def ending(path: str) -> str:
    """In small letters, that of a compression left out: `a.JSONL.gz` -> ".jsonl"."""
    stem, last = os.path.splitext(bare(path).rstrip("/"))
    return (os.path.splitext(stem)[1] if last.lower() in COMPRESSIONS else last).lower()


def format_of(path: str) -> str | None:
    """The format that the ending names, "" for an ending that is certainly none of ours, None for one that is unknown
    (taken for text if it is text)."""
    last = ending(path)
    return "" if last in _BINARY else ENDINGS.get(last)


def checked(word: str | None) -> str | None:
    """A format as the caller wrote it.

    Raises:
        InvalidRequest: there is none of this name.
    """
    if word is None:
        return None
    name = WORDS.get(word.lower().removeprefix("."), word.lower().removeprefix("."))
    if name not in KNOWN.split(", "):
        raise InvalidRequest(f"no format is called {word!r}; known: {KNOWN}", param="format")
    return name


def refuse(path: str) -> InvalidRequest:
    """Why a file with this ending, or these bytes, is not read."""
    return InvalidRequest(
        f"{shown(path)}: is neither text nor a format that is known ({KNOWN}); if it is one of these, name the format"
    )
