"""Where bulk embedding writes to: one file per format behind the protocol of `base.py`. A new format is a file and a
row here."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from lemni.bulk.outputs.base import Made, Output
from lemni.errors import InvalidRequest, missing_extra
from lemni.stores import STORES, is_store

__all__ = ["ENDINGS", "FORMATS", "Made", "Output", "open_output"]

_HERE = "lemni.bulk.outputs"

# Format -> class of one file, imported when it is asked for.
FORMATS: dict[str, str] = {
    "npy": f"{_HERE}.npy:Npy",
    "npz": f"{_HERE}.npz:Npz",
    "jsonl": f"{_HERE}.lines:JsonLines",
    "parquet": f"{_HERE}.parquet:Parquet",
    "arrow": f"{_HERE}.arrow:Arrow",
    "lance": f"{_HERE}.lance:Lance",
    "safetensors": f"{_HERE}.safetensors:SafeTensors",
    "numpy": f"{_HERE}.numpy_json:NumpyJson",
    "chroma": f"{_HERE}.chroma:ChromaJson",
    "pinecone": f"{_HERE}.pinecone:PineconeJson",
}
# Ending of a file -> format.
ENDINGS: dict[str, str] = {
    ".npy": "npy",
    ".npz": "npz",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".lance": "lance",
    ".safetensors": "safetensors",
}
# Format -> class of the files of a folder.
_IN_FOLDERS: dict[str, str] = {
    "npy": FORMATS["npy"],
    "npz": FORMATS["npz"],
    "jsonl": FORMATS["jsonl"],
    "parquet": f"{_HERE}.parquet:ParquetParts",
    "arrow": f"{_HERE}.arrow:ArrowParts",
    "safetensors": FORMATS["safetensors"],
    "pinecone": f"{_HERE}.pinecone_parquet:PineconeParquet",
}
# Module -> package, extra, what for.
_PACKAGES: dict[str, tuple[str, str, str]] = {
    "pyarrow": ("pyarrow", "parquet", "Writing parquet and Arrow files"),
    "lance": ("pylance", "lance", "Writing Lance datasets"),
}
# Ending -> class of a file for Pinecone.
_PINECONE: dict[str, str] = {
    ".json": FORMATS["pinecone"],
    ".jsonl": f"{_HERE}.pinecone:PineconeLines",
    ".parquet": f"{_HERE}.pinecone_parquet:PineconeParquet",
}


def open_output(place: str, *, format: str | None = None, vector_column: str = "embedding") -> Output:
    """The output at a place: a file, whose ending says the format if `format` does not; a folder of files, if it ends
    in a slash (parquet if neither says another format) or is a folder already; or the address of a vector store.

    For the formats `chroma` and `pinecone` the place may be empty. Nothing is written before `Output.prepare`.

    Raises:
        InvalidRequest: no such format, or none is named; lists them.
        StoreError: it is no address.
        MissingExtra: an optional package is needed.
    """
    if is_store(place):
        if format is not None:
            raise InvalidRequest(f"{place.partition(':')[0]}: a vector store has no format {format!r}")
        from lemni.bulk.outputs.stores import StoreOutput

        return StoreOutput(place)
    if "://" in place or "?collection=" in place:
        scheme = place.partition(":")[0] + ("://" if "://" in place else ":")
        raise InvalidRequest(f"{scheme}: cannot be written to; an output is a path or a store: {', '.join(STORES)}")
    if format is not None and format not in FORMATS:
        raise InvalidRequest(f"no output format is called {format!r}; known: {', '.join(FORMATS)}")
    if vector_column in ("id", "text"):
        raise InvalidRequest(f"the vectors cannot be called {vector_column!r} (--vector-column): a column is already")
    return _file_output(place, format, vector_column)


def _file_output(place: str, format: str | None, vector_column: str) -> Output:
    path = Path(place)
    ending = path.suffix.lower()
    if format == "chroma":
        from lemni.bulk.outputs.chroma import FILE, FOLDER, ChromaJson

        return ChromaJson(path if ending == ".json" else Path(place or FOLDER) / FILE, vector_column)
    if format == "pinecone" and not place:
        path, ending = Path("pinecone_vectors.json"), ".json"
    if not path.name:
        raise InvalidRequest("an output needs a place to be written to")
    known = ENDINGS.get(ending)
    if format == "lance" or (format is None and known == "lance"):
        return _of(FORMATS["lance"], path, vector_column)
    if place.endswith(("/", "\\")) or path.is_dir():
        if format is None and path.is_dir() and not place.endswith(("/", "\\")):
            raise InvalidRequest(f"{place}: is a folder; a folder of files needs a format: {', '.join(_IN_FOLDERS)}")
        return _folder(path, format or known or "parquet", vector_column)
    if format == "pinecone":
        if ending not in _PINECONE:
            raise InvalidRequest(f"{place}: for Pinecone the name must end in {', '.join(_PINECONE)}, or in a slash")
        return _of(_PINECONE[ending], path, vector_column)
    if format is None and known is None:
        raise InvalidRequest(f"{place}: the name must end in one of {', '.join(ENDINGS)}, or a format must be given")
    wanted = format or known or ""
    if known not in (None, wanted) and not (wanted == "numpy" and known == "npy"):
        raise InvalidRequest(f"{place}: is named as {known}, but the format is to be {wanted}")
    return _of(FORMATS[wanted], path, vector_column)


def _folder(path: Path, format: str, vector_column: str) -> Output:
    from lemni.bulk.outputs.folder import Folder

    if format not in _IN_FOLDERS:
        raise InvalidRequest(f"{path}: {format} is no folder of files; those are {', '.join(_IN_FOLDERS)}")
    return Folder(path, _class(_IN_FOLDERS[format]), vector_column)


def _of(row: str, path: Path, vector_column: str) -> Output:
    made: Output = _class(row)(path, vector_column)
    return made


def _class(row: str) -> type:
    module, _, name = row.partition(":")
    try:
        found: type = getattr(import_module(module), name)
    except ImportError as error:
        needed = _PACKAGES.get(error.name or "")
        if needed is None:
            raise
        raise missing_extra(*needed) from None
    return found
