"""What a migration can be told."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from lemni.bulk.plan import Model
from lemni.errors import ConfigError
from lemni.migrate.verify import Limits
from lemni.stores.base import Metric
from lemni.types import InputType, Task

StrPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class How:
    """Everything but the two sides and the model.

    Attributes:
        text: field of the source that holds the texts; the store's own default if None.
        id: column of a file that names its rows; `id` if None.
        texts_from: file with the columns id and text, for entries that have no text in the store.
        skip_missing: leave out entries without a text, instead of refusing to begin.
        task: "embed", "sparse" or "multi_vector"; what the model is made for if None.
        dimensions, prompt_name, input_type: as in `lemni.types.Options`.
        metric: how the new collection compares; what the model is made for if None.
        batch: entries that are computed and written together, and lost by an interruption; by kind if None.
        overwrite: forget what an earlier run did and drop the target before.
        switch: give the name to the new collection once it is verified.
        alias: that name; where both sides are one store, the source's collection if None.
        drop_old: only remove the old collection of a migration that is verified and switched.
        catch_up: embed only what the target lacks, or has with another text or other metadata.
        dual_write: the report has notes for a system that is written to meanwhile.
        queries, qrels: files of judged queries (`lemni.migrate.judged`); both or none.
        old_model: what embeds queries for the old side.
        limits: of the verification.
        folder: of records, journal and report; `migrate-STORE-OLD-to-NEW` here if None.
        report: path of the report without an ending; in the folder if None.
        progress: whether a bar is shown; on a terminal if None.
        price_per_hour: of this machine.
    """

    text: str | None = None
    id: str | None = None
    texts_from: StrPath | None = None
    skip_missing: bool = False
    task: Task | None = None
    dimensions: int | None = None
    prompt_name: str | None = None
    input_type: InputType | None = "document"
    metric: Metric | None = None
    batch: int | None = None
    overwrite: bool = False
    switch: bool = True
    alias: str | None = None
    drop_old: bool = False
    catch_up: bool = False
    dual_write: bool = False
    queries: StrPath | None = None
    qrels: StrPath | None = None
    old_model: str | Model | None = None
    limits: Limits = field(default_factory=Limits)
    folder: StrPath | None = None
    report: StrPath | None = None
    progress: bool | None = None
    price_per_hour: float | None = None

    def __post_init__(self) -> None:
        if (self.queries is None) != (self.qrels is None):
            raise ConfigError("queries and their judgements belong together: --queries and --qrels")
        if self.catch_up and self.overwrite:
            raise ConfigError("--catch-up adds to what is there, and --overwrite drops it: choose one")
        if self.drop_old and (self.catch_up or self.overwrite or not self.switch):
            raise ConfigError(
                "--drop-old only removes the old collection: --catch-up, --overwrite and --no-switch belong to the "
                "command before it"
            )
