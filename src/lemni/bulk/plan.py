"""What a bulk job is, in all that its vectors depend on: two jobs with equal identities give equal files."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lemni.bulk.outputs.base import Made
from lemni.config import EngineSettings, HubSettings, MediaSettings, ModelSettings
from lemni.errors import ConfigError, InvalidRequest
from lemni.tasks.model import LoadedModel
from lemni.tasks.output_types import OutputType
from lemni.types import ModelCard, Options, Request, Task

VECTOR_TASKS: tuple[Task, ...] = ("embed", "sparse", "multi_vector")
"""The first of these that a model does, in its own order, is what it is made for."""

_SHARD_ROWS: dict[Task, int] = {"embed": 4096, "sparse": 2048, "multi_vector": 512}
_IMAGE_ROWS = 128
_NUMPY = {"binary": "int8", "ubinary": "uint8"}


@dataclass(frozen=True, slots=True)
class Rules:
    """What happens to rows.

    Attributes:
        shard_rows: rows that are computed and written together, and lost by an interruption; by kind if None.
        empty: whether texts without a character are rejected or embedded.
        fail_fast: end at the first rejected row.
        max_rejects: end when more rows than these are rejected.
    """

    shard_rows: int | None = None
    empty: Literal["reject", "embed"] = "reject"
    fail_fast: bool = False
    max_rejects: int | None = None

    def __post_init__(self) -> None:
        if self.shard_rows is not None and self.shard_rows < 1:
            raise ConfigError(f"shard_rows is {self.shard_rows}; it must be at least 1")
        if self.max_rejects is not None and self.max_rejects < 0:
            raise ConfigError(f"max_rejects is {self.max_rejects}; it must be at least 0")
        if self.empty not in ("reject", "embed"):
            raise ConfigError(f"empty is {self.empty!r}; it must be 'reject' or 'embed'")


@dataclass(frozen=True, slots=True)
class Model:
    """How a job's model is loaded, here or on another machine."""

    settings: ModelSettings
    engine: EngineSettings
    hub: HubSettings
    media: MediaSettings

    @classmethod
    def named(cls, name: str) -> Model:
        """A model with every setting at its default."""
        return cls(
            ModelSettings.model_validate({"model": name}),
            EngineSettings.model_validate({}),
            HubSettings.model_validate({}),
            MediaSettings.model_validate({}),
        )

    def load(self) -> LoadedModel:
        from lemni.loading import load_model

        return load_model(self.settings, self.hub, self.engine, self.media)


@dataclass(frozen=True, slots=True)
class Plan:
    """A job, ready to run.

    Attributes:
        request: without items: the task and the options.
        made: what its vectors are.
        identity: what must be equal when it is resumed.
    """

    model: Model
    request: Request
    made: Made
    output_type: OutputType
    rules: Rules
    shard_rows: int
    identity: dict[str, Any]


def plan(
    source: dict[str, Any],
    output: dict[str, Any],
    model: Model,
    loaded: LoadedModel,
    *,
    task: Task | None = None,
    options: Options | None = None,
    output_type: OutputType = "float32",
    rules: Rules | None = None,
    images: bool = False,
) -> Plan:
    """Check what can be checked without a row.

    Args:
        source, output: their identities.

    Raises:
        InvalidRequest: the model does not do this, or not to images.
    """
    card = loaded.card
    rules, options = rules or Rules(), options or Options()
    task = task or made_for(card)
    request = Request([], options, (task,), priority="bulk", field="text")
    loaded.validate(request)
    if images and "image" not in card.modalities:
        raise InvalidRequest(f"{card.name} takes no images; it takes {', '.join(card.modalities)}")
    if task != "embed" and output_type != "float32":
        raise InvalidRequest(
            f"the output type {output_type} is for dense vectors, which {card.name} does not give here"
        )
    made = Made(
        task,
        None if task == "sparse" else options.dimensions or card.dimensions,
        _NUMPY.get(output_type, output_type),
        output_type,
        card.similarity,
        card.name,
        card.revision,
        card.vocabulary,
    )
    shard_rows = rules.shard_rows or (_IMAGE_ROWS if images else _SHARD_ROWS[task])
    identity = {
        "input": source,
        "output": output,
        "model": {
            "name": card.model_id,
            "revision": card.revision,
            "precision": card.dtype,
            "runtime": card.runtime,
            "pooling": card.pooling,
            "max_length": card.max_length,
            "max_batch_tokens": model.engine.max_batch_tokens or loaded.backend.limits.batch_tokens,
        },
        "options": asdict(options),
        "defaults": {
            "prompt_name": model.settings.prompt_name or card.default_prompt_name,
            "truncate": card.truncate,
        },
        "prompts": hashlib.sha256(repr(sorted(card.prompts.items())).encode()).hexdigest()[:16],
        "task": task,
        "output_type": output_type,
        "dimensions": made.dimensions,
        "shard_rows": shard_rows,
        "empty": rules.empty,
    }
    return Plan(model, request, made, output_type, rules, shard_rows, identity)


def made_for(card: ModelCard) -> Task:
    """What kind of vectors."""
    return next((one for one in card.tasks if one in VECTOR_TASKS), "embed")


def check_places(source_files: list[Path], output_files: list[Path]) -> None:
    """Raises InvalidRequest where an output would be written over an input, or into a folder that is one."""
    inputs = {path.resolve() for path in source_files}
    for path in output_files:
        place = path.resolve()
        if place in inputs:
            raise InvalidRequest(f"{path} is the input: write the output somewhere else")
        if any(folder in inputs for folder in place.parents):
            raise InvalidRequest(f"{path} would be in the folder that is the input: write the output somewhere else")
