"""What can be known before anything is written: both sides as they are, and whether every entry has a text."""

from __future__ import annotations

from dataclasses import dataclass

from lemni.errors import ConfigError, InvalidRequest
from lemni.migrate.checks import named
from lemni.migrate.connection import Connection
from lemni.migrate.source import Side, is_missing
from lemni.stores import as_id
from lemni.stores.base import Description, Id, Schema

_PAGE = 1024
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Preflight:
    """Both sides before a migration.

    Attributes:
        source: None of files.
        entries: of the old side; `missing` of them have no text, the first ones' ids are in `missing_ids`.
        characters: of all texts.
        target: None where there is no such collection yet.
        schema: what it will have.
    """

    source: Description | None
    entries: int
    missing: int
    missing_ids: tuple[Id, ...]
    characters: int
    target: Description | None
    schema: Schema

    def lines(self, source: str, target: str) -> list[str]:
        """For people."""
        before = "" if self.source is None else f"; {_said(self.source)}"
        after = "does not exist yet" if self.target is None else f"{self.target.count:,} entries so far"
        lines = [
            f"from: {source}: {self.entries:,} entries, {self.characters:,} characters{before}",
            f"to:   {target}: {after}; {shape(self.schema)}",
        ]
        if self.missing:
            lines.append(f"without a text: {self.missing:,}: {named(list(self.missing_ids), _NAMED)}")
        return lines + [note for one in (self.source, self.target) if one is not None for note in one.notes]


def look(source: Side, target: Connection, schema: Schema, *, ours: bool) -> Preflight:
    """Look through the old side once, and at the new one.

    Args:
        schema: that the new side is to have.
        ours: whether an earlier run of this migration has written to the target.

    Raises:
        StoreError: there is no such source, or an id that the target cannot take.
        ConfigError: the target is there and no work of this migration, or not of this schema.
        InvalidRequest: the source is empty.
    """
    before = None if source.connection is None else source.connection.store.describe()
    store = target.store
    after = store.describe() if store.exists() else None
    if schema.kind not in store.kinds:
        raise InvalidRequest(f"{target.name}: holds {', '.join(store.kinds)} vectors, not {schema.kind} ones")
    if after is not None and after.schema is not None and after.schema != schema:
        raise ConfigError(
            f"{target.name}: is there already with {shape(after.schema)}, and the model gives {shape(schema)}: name "
            "another target, or --overwrite this one"
        )
    if after is not None and after.count and not ours:
        raise ConfigError(
            f"{target.name}: has {after.count} entries that this migration has not written: name another target, "
            "--overwrite this one, or --catch-up with what it lacks"
        )
    entries = missing = characters = 0
    first: list[Id] = []
    id_type, name = store.id_type, store.name
    for page in source.pages(_PAGE):
        entries += len(page)
        for one, text in zip(page.ids, page.texts, strict=True):
            as_id(one, id_type, name)
            if is_missing(text):
                missing += 1
                if len(first) < _NAMED:
                    first.append(one)
            else:
                characters += len(text or "")
    if not entries:
        raise InvalidRequest(f"{source.name}: has no entries")
    return Preflight(before, entries, missing, tuple(first), characters, after, schema)


def check_texts(found: Preflight, source: str, *, skip_missing: bool) -> None:
    """Raises InvalidRequest for entries without a text, unless they are to be left out; and if none has one."""
    if found.missing == found.entries:
        raise InvalidRequest(
            f"{source}: none of its {found.entries} entries has a text: say with --text which field holds it, or give "
            "a file with id and text as --texts-from"
        )
    if found.missing and not skip_missing:
        raise InvalidRequest(
            f"{source}: {found.missing} of {found.entries} entries have no text: "
            f"{named(list(found.missing_ids), _NAMED)}. --texts-from gives them texts, --skip-missing leaves them out"
        )


def shape(schema: Schema) -> str:
    """In words."""
    width = "" if schema.dimensions is None else f", {schema.dimensions} dimensions"
    return f"{schema.kind} vectors{width}, {schema.metric}"


def _said(found: Description) -> str:
    behind = f", collection {found.collection} behind an alias" if found.alias else ""
    return ("no schema known" if found.schema is None else shape(found.schema)) + behind
