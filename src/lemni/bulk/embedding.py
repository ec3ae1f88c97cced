"""`lemni.bulk.embed` and `lemni.bulk.estimate`: the arguments of a job, from a script or the command line."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypedDict

from typing_extensions import Unpack

from lemni.bulk.manifest import Manifest
from lemni.bulk.outputs import open_output
from lemni.bulk.outputs.base import Output
from lemni.bulk.plan import VECTOR_TASKS, Model, Plan, Rules, check_places, plan
from lemni.bulk.progress import Price
from lemni.bulk.run import Job, Summary, run_job
from lemni.bulk.sample import Estimate
from lemni.bulk.sample import estimate as estimate_job
from lemni.bulk.sources import open_source
from lemni.bulk.sources.base import Columns, Source
from lemni.bulk.sources.source import FileSource
from lemni.config import DEFAULT_MODEL
from lemni.errors import ConfigError, InvalidRequest
from lemni.stores import is_store
from lemni.stores.place import parse
from lemni.tasks.model import LoadedModel
from lemni.tasks.output_types import OutputType
from lemni.types import InputType, Options, Task, Truncate

StrPath = str | os.PathLike[str]


_OPTIONS = ("dimensions", "normalize", "prompt", "prompt_name", "input_type", "truncate", "max_tokens")
_CHOICES = {
    "output_type": ("float32", "float16", "int8", "uint8", "binary", "ubinary"),  # bfloat16 is no type of numpy
    "task": VECTOR_TASKS,
}
_RULES = ("shard_rows", "empty", "fail_fast", "max_rejects")


class Running(TypedDict):
    """Arguments of `run_job`."""

    overwrite: bool
    progress: bool | None
    price: Price | None


class Wanted(TypedDict, total=False):
    """What a bulk job can be told, by keyword.

    Attributes:
        text: column that is embedded; "text" if not given.
        id: column that names a row; the column "id" where there is one, else the row's number.
        carry: other columns to keep; all if not given.
        images: the cells of `text` are paths of images.
        query: the input is a database (an SQLAlchemy URL), and this its query.
        input_format, format: of the input and of the output, where their names do not say.
        vector_column: name of the vectors' column; "embedding" if not given.
        task: "embed", "sparse" or "multi_vector"; what the model is made for if not given.
        output_type: "float32", "float16", "int8", "uint8", "binary" or "ubinary".
        dimensions, normalize, prompt, prompt_name, input_type, truncate, max_tokens: as in `lemni.types.Options`.
        shard_rows: rows that are computed and written together, and lost by an interruption.
        empty: "reject" or "embed" texts without a character.
        fail_fast: end at the first rejected row.
        max_rejects: end when more rows than these are rejected.
        overwrite: replace a file that is there; forget an interrupted or complete job. In a store, rows with equal ids
            are overwritten always, and others are left.
        manifest: path that the job's files are named after; the output's, or for a store its collection and the input.
        progress: whether a bar is shown; on a terminal if not given.
        price_per_hour: of this machine, for the cost so far.
    """

    text: str
    id: str | None
    carry: Seq[str] | None
    images: bool
    query: str | None
    input_format: str | None
    format: str | None
    vector_column: str
    task: Task | None
    output_type: OutputType
    dimensions: int | None
    normalize: bool | None
    prompt: str | None
    prompt_name: str | None
    input_type: InputType | None
    truncate: Truncate | None
    max_tokens: int | None
    shard_rows: int | None
    empty: Literal["reject", "embed"]
    fail_fast: bool
    max_rejects: int | None
    overwrite: bool
    manifest: StrPath | None
    progress: bool | None
    price_per_hour: float | None


def embed(
    input: StrPath | Seq[StrPath],
    output: StrPath,
    *,
    model: str | Model = DEFAULT_MODEL,
    stdin: BinaryIO | None = None,
    **wanted: Unpack[Wanted],
) -> Summary:
    """Embed a whole input into a file or a vector store. Killed at any moment, the same call goes on where it was.

    Args:
        input: file, glob, folder or URL (.txt .jsonl .json .csv .tsv .parquet .arrow .lance, `datasets` folders), or
            several of them; "-" for standard input.
        output: .npy .npz .jsonl .parquet .arrow .lance .safetensors, a folder of parts ("out/" with `format`), or the
            address of a vector store (`lemni.stores`).
        model: as in `lemni.load`; a `Model` for other settings.

    Raises:
        InvalidRequest: what cannot be read or written; a job that was another one; too many rejected rows.
        LemniError: what loading the model and writing raise.

    Example:
        >>> import lemni.bulk
        >>> done = lemni.bulk.embed("texts.jsonl", "vectors.npy")  # doctest: +SKIP
        >>> done.written, done.rejected  # doctest: +SKIP
        (1049, 0)
    """
    asked = Asked.of(input, output, model, stdin, wanted)
    with contextlib.closing(asked.model.load()) as loaded:
        return run_job(asked.job(asked.plan(loaded)), loaded, **asked.run)


def estimate(
    input: StrPath | Seq[StrPath],
    output: StrPath,
    *,
    model: str | Model = DEFAULT_MODEL,
    stdin: BinaryIO | None = None,
    **wanted: Unpack[Wanted],
) -> Estimate:
    """What `embed` with the same arguments would take, from a sample of the first rows; writes nothing."""
    asked = Asked.of(input, output, model, stdin, wanted)
    with contextlib.closing(asked.model.load()) as loaded:
        return estimate_job(asked.job(asked.plan(loaded)), loaded, price=asked.run["price"])


@dataclass(frozen=True, slots=True)
class Asked:
    """A job as it was asked for, its places opened; no model is loaded yet.

    Attributes:
        wanted: arguments of `lemni.bulk.plan.plan`; picklable.
        run: arguments of `run_job`.
    """

    source: Source
    output: Output
    manifest: Manifest
    model: Model
    wanted: dict[str, Any]
    run: Running

    @classmethod
    def of(
        cls,
        input: StrPath | Seq[StrPath],
        output: StrPath,
        model: str | Model,
        stdin: BinaryIO | None,
        wanted: Wanted,
    ) -> Asked:
        """Raises ConfigError, InvalidRequest, StoreError, MissingExtra."""
        if unknown := sorted(set(wanted) - set(Wanted.__annotations__)):
            raise ConfigError(f"unknown argument {unknown[0]!r}; known: {', '.join(Wanted.__annotations__)}")
        for name, choices in _CHOICES.items():
            given = wanted.get(name)
            if given is not None and given not in choices:
                raise ConfigError(f"{name} is {given!r}; it must be one of {', '.join(choices)}")
        places = [os.fspath(input)] if isinstance(input, str | os.PathLike) else [os.fspath(one) for one in input]
        images, carry = wanted.get("images", False), wanted.get("carry")
        columns = Columns(
            wanted.get("text", "text"),
            wanted.get("id"),
            None if carry is None else tuple(carry),
            "image" if images else "text",
        )
        source = open_source(places, columns, query=wanted.get("query"), stdin=stdin, format=wanted.get("input_format"))
        place = os.fspath(output)
        opened = open_output(place, format=wanted.get("format"), vector_column=wanted.get("vector_column", "embedding"))
        # What a glob has found, too.
        found = [Path(file.path) for file in source.files] if isinstance(source, FileSource) else []
        check_places([*map(Path, places), *found], opened.files())
        chosen = wanted.get("manifest")
        manifest = Manifest(Path(chosen) if chosen is not None else base_of(place, opened, places))
        if not manifest.base.absolute().parent.is_dir():
            raise InvalidRequest(f"{manifest.base.parent}: there is no such folder")
        price = wanted.get("price_per_hour")
        return cls(
            source,
            opened,
            manifest,
            model if isinstance(model, Model) else Model.named(model),
            {
                "task": wanted.get("task"),
                "options": Options(**{name: wanted.get(name) for name in _OPTIONS}),  # type: ignore[arg-type]
                "output_type": wanted.get("output_type", "float32"),
                "rules": Rules(**{name: wanted[name] for name in _RULES if name in wanted}),  # type: ignore[literal-required]
                "images": images,
            },
            {
                "overwrite": wanted.get("overwrite", False),
                "progress": wanted.get("progress"),
                "price": None if price is None else Price(price),
            },
        )

    def plan(self, loaded: LoadedModel) -> Plan:
        return plan(self.source.identity(), self.output.identity(), self.model, loaded, **self.wanted)

    def job(self, planned: Plan) -> Job:
        return Job(planned, self.source, self.output, self.manifest)


def base_of(output: str, opened: Output, inputs: Seq[str]) -> Path:
    """What the job's own files are named after: the output; for a store its file or folder, or its host in this folder,
    with the names of the collection and of the input, so that another input is another job."""
    if not is_store(output):
        return Path(output.rstrip("/")) if output else opened.files()[0]
    place = parse(output)
    source = "stdin" if inputs[0] == "-" else inputs[0].rstrip("/").rpartition("/")[2].partition(".")[0]
    names = [place.collection, re.sub(r"[^\w-]+", "_", source).strip("_")]
    path = Path(f"{place.scheme}-{place.host}" if place.host else place.path or place.scheme)
    return path.with_name("-".join([path.name, *(name.replace("/", "_") for name in names if name)]))
