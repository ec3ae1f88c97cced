"""Embeddings of a file of texts with another model, as a .npy file or as Chroma or Pinecone take them.

    python examples/migrate_embeddings.py --input your_texts.json --output embeddings_new.npy
    python examples/migrate_embeddings.py --input your_texts.json --format chroma     # chroma_export/chroma_data.json
    python examples/migrate_embeddings.py --input your_texts.json --format pinecone   # pinecone_vectors.json

A thin script over `lemni.bulk`. What is large enough to be interrupted is better done by `lemni embed`, which goes on
where it was. A collection that is in a store already is migrated there by `lemni migrate` (docs/migrate.md), which
verifies, switches and rolls back too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import lemni.bulk
from lemni.errors import LemniError

FORMATS = (".json", ".jsonl", ".txt")


def read_texts(path: Path) -> list[str]:
    """Of `.json` a list of texts or of objects with `text`, one such object, or an object whose values are the texts;
    of `.jsonl` an object with `text` in each line; of `.txt` a text in each line, blank ones left out.

    Raises:
        ValueError: another ending, or a row without a text; names the row.
    """
    if path.suffix not in FORMATS:
        raise ValueError(f"Unsupported file format: {path.suffix}")
    content = path.read_text("utf-8")
    if path.suffix == ".txt":
        return [line.strip() for line in content.splitlines() if line.strip()]
    if path.suffix == ".jsonl":
        lines = [(number, line) for number, line in enumerate(content.splitlines(), 1) if line.strip()]
        return [text_of(json.loads(line), f"{path}: line {number}") for number, line in lines]
    found = json.loads(content)
    if isinstance(found, dict):
        if "text" in found:
            return [text_of(found, str(path))]
        return [text_of(value, f"{path}: {name!r}") for name, value in found.items()]
    if not isinstance(found, list):
        raise ValueError(f"{path}: is neither a list nor an object")
    return [text_of(row, f"{path}: row {number}") for number, row in enumerate(found)]


def text_of(row: Any, where: str) -> str:
    """Raises ValueError for what is no text."""
    text = row.get("text") if isinstance(row, dict) else row
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{where}: has no text")
    return text


def read_ids(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]


def read_metadata(path: Path) -> list[dict[str, Any]]:
    found = json.loads(path.read_text("utf-8"))
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError(f"{path}: must be a list of objects")
    return found


def check_count(path: Path, found: int, texts: int) -> None:
    if found != texts:
        raise ValueError(f"{path}: has {found} entries, and there are {texts} texts")


def place_of(options: argparse.Namespace) -> Path:
    """Where the format goes, as it always has."""
    if options.format == "chroma":
        return Path("chroma_export") / "chroma_data.json"
    if options.output is not None:
        return Path(options.output)
    return Path("pinecone_vectors.json" if options.format == "pinecone" else f"embeddings_{options.input.stem}.npy")


def rows_of(options: argparse.Namespace) -> list[dict[str, Any]]:
    """With their ids, and their metadata beside them."""
    texts = read_texts(options.input)
    if not texts:
        raise ValueError(f"{options.input}: has no texts")
    ids = [f"doc_{number}" for number in range(len(texts))]
    metadata: list[dict[str, Any]] = [{} for _ in texts]
    if options.ids_file is not None:
        ids = read_ids(options.ids_file)
        check_count(options.ids_file, len(ids), len(texts))
    if options.metadata_file is not None:
        metadata = read_metadata(options.metadata_file)
        check_count(options.metadata_file, len(metadata), len(texts))
        for number, carried in enumerate(metadata):
            if taken := {"id", "text"} & set(carried):
                raise ValueError(
                    f"{options.metadata_file}: entry {number} has the field {min(taken)!r}, which is taken"
                )
    return [{"id": name, "text": text, **carried} for name, text, carried in zip(ids, texts, metadata, strict=True)]


def check_place(place: Path, options: argparse.Namespace) -> None:
    """Raises ValueError where an input would be overwritten."""
    written = {place.resolve(), place.with_suffix(".json").resolve()}
    for path in (options.input, options.ids_file, options.metadata_file):
        if path is not None and path.resolve() in written:
            raise ValueError(f"{path}: would be overwritten: choose another --output")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True, type=Path, help=".json, .jsonl or .txt")
    parser.add_argument("--model", default="BAAI/bge-large-en-v1.5", help="default: %(default)s")
    parser.add_argument(
        "--batch-size", type=int, default=32, help="texts that are embedded together; default: %(default)s"
    )
    parser.add_argument("--output", help="default: embeddings_INPUT.npy or pinecone_vectors.json; not of chroma")
    parser.add_argument("--format", choices=["numpy", "chroma", "pinecone"], default="numpy")
    parser.add_argument("--ids-file", type=Path, help="an id in each line")
    parser.add_argument("--metadata-file", type=Path, help="a JSON list of objects")
    options = parser.parse_args()
    place = place_of(options)
    try:
        check_place(place, options)
        rows = rows_of(options)
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            joined = Path(folder) / "rows.jsonl"
            joined.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
            done = lemni.bulk.embed(
                joined,
                place,
                model=options.model,
                format=options.format,
                normalize=True,
                shard_rows=options.batch_size,
                overwrite=True,
                manifest=Path(folder) / "job",
            )
    except (LemniError, ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    print(f"{done.written} embeddings in {', '.join(done.outputs)}", file=sys.stderr)


if __name__ == "__main__":
    main()
