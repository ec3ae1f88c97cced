"""How a table of PostgreSQL holds entries: which column is what, and how its values become text and come back."""

from __future__ import annotations

import json
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg import Connection, sql
from psycopg.adapt import PyFormat, Transformer

from lemni.errors import StoreError

TEXTS = ("text", "document", "content", "body")  # columns of a text if none is named
VECTORS = ("vector", "halfvec", "sparsevec")
_PLAIN = {"bool", "int2", "int4", "int8", "float8", "text", "varchar", "json", "jsonb"}
_PLAIN |= {"_bool", "_int2", "_int4", "_int8", "_float8", "_text", "_varchar"}
MOST = {"vector": 2_000, "halfvec": 4_000}  # dimensions of an index
_METRICS = {"cosine": "cosine", "ip": "dot", "l2": "l2"}  # of an operator class -> ours
OPERATORS = {"cosine": "<=>", "dot": "<#>", "l2": "<->"}
CLASSES = {metric: word for word, metric in _METRICS.items()}
_MARK = "lemni: "  # begins the comment of a column that was made here


@dataclass(frozen=True, slots=True)
class Column:
    """Attributes:
    type: its name without a length, as in a cast.
    base: of the catalogue: "int8", "_text" (an array), "vector".
    dimensions: of a vector type that has them.
    computed: by the database; never written.
    """

    name: str
    number: int
    type: str
    base: str
    dimensions: int | None = None
    not_null: bool = False
    computed: bool = False

    @property
    def quoted(self) -> sql.Identifier:
        return sql.Identifier(self.name)

    @property
    def read(self) -> sql.Composable:
        """Its value as JSON can hold it; what JSON has no type for in PostgreSQL's own words, which it reads back."""
        if self.base in _PLAIN or self.base in VECTORS:
            return self.quoted
        if self.base == "float4":
            return sql.SQL("{}::text::float8").format(self.quoted)
        return sql.SQL("{}::text").format(self.quoted)

    def text(self, value: Any, transformer: Transformer) -> str | None:
        """A value in PostgreSQL's own words. Raises TypeError if it has none."""
        if value is None:
            return None
        if self.base in ("json", "jsonb"):
            return json.dumps(value, ensure_ascii=False, default=_plain)
        if isinstance(value, str):
            return value
        if isinstance(value, (bool, dict)) or (isinstance(value, list) and not self.base.startswith("_")):
            return json.dumps(value, ensure_ascii=False, default=_plain)
        return bytes(transformer.get_dumper(value, PyFormat.TEXT).dump(value) or b"").decode()


def _plain(value: Any) -> Any:
    """What JSON has no type for."""
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    if hasattr(value, "tolist"):  # numpy
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no JSON")


@dataclass(frozen=True, slots=True)
class Layout:
    """Attributes:
    vector: None where the table has no such column.
    text: None where it has none.
    metadata: the json column whose object is the metadata; if None, `others` are.
    others: every column but id, text, vectors and what the database computes.
    """

    columns: tuple[Column, ...]
    id: Column
    vector: Column | None
    text: Column | None
    metadata: Column | None
    others: tuple[Column, ...]

    @property
    def id_type(self) -> str:
        return {"int2": "int", "int4": "int", "int8": "int", "uuid": "uuid-or-int"}.get(self.id.base, "str")


def quoted(schema: str, table: str) -> sql.Identifier:
    return sql.Identifier(schema, table)


def read_columns(connection: Connection[Any], schema: str, table: str) -> tuple[Column, ...]:
    """Empty if there is no such table."""
    found = connection.execute(
        """
        SELECT a.attname, a.attnum, format_type(a.atttypid, -1), t.typname, a.atttypmod, a.attnotnull,
               a.attgenerated <> ''
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_type t ON t.oid = a.atttypid
        WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p', 'f', 'v', 'm')
          AND a.attnum > 0 AND NOT a.attisdropped
        ORDER BY a.attnum
        """,
        (schema, table),
    )
    return tuple(
        Column(name, number, kind, base, size if base in VECTORS and size > 0 else None, not_null, computed)
        for name, number, kind, base, size, not_null, computed in found
    )


def lay_out(
    columns: Seq[Column], where: str, *, name: str, vector: str, text: str | None, metadata: str | None
) -> Layout:
    """Raises StoreError if a column that was asked for is not there."""
    by_name = {column.name: column for column in columns}
    for option, wanted in (("id", name), ("text", text), ("metadata", metadata)):
        if wanted and wanted not in by_name:
            raise StoreError(
                f"{where}: it has no column {wanted!r}, but {', '.join(by_name)}; say which one by {option}=COLUMN"
            )
    text = text or next((one for one in TEXTS if one in by_name), None)
    held = by_name.get(vector)
    if held and held.base not in VECTORS:
        raise StoreError(f"{where}: its column {vector!r} is a {held.type}, no vector; say which one by vector=COLUMN")
    others = tuple(
        column
        for column in columns
        if column.name not in (name, text) and column.base not in VECTORS and not column.computed
    )
    if metadata is None and [(one.name, one.base) for one in others] == [("metadata", "jsonb")]:
        metadata = "metadata"
    chosen = by_name[metadata] if metadata else None
    if chosen and chosen.base not in ("json", "jsonb"):
        raise StoreError(f"{where}: its column {metadata!r} is a {chosen.type}, and metadata=COLUMN wants a jsonb")
    return Layout(tuple(columns), by_name[name], held, by_name[text] if text else None, chosen, others)


def unique_id(connection: Connection[Any], schema: str, table: str, column: Column) -> bool:
    """Whether the database keeps ids apart."""
    found = connection.execute(
        "SELECT 1 FROM pg_index WHERE indrelid = %s::regclass AND indisunique AND indisvalid AND indnkeyatts = 1 "
        "AND indpred IS NULL AND indkey[0] = %s",
        (quoted(schema, table).as_string(connection), column.number),
    )
    return found.fetchone() is not None


@dataclass(frozen=True, slots=True)
class Index:
    """Of a vector column. `settings` such as "m=16"."""

    kind: str
    metric: str
    settings: tuple[str, ...] = ()


def index_of(connection: Connection[Any], schema: str, table: str, column: Column) -> Index | None:
    """The one that searches use; the metric is "" if Lemni does not know it (l1)."""
    found = connection.execute(
        """
        SELECT m.amname, o.opcname, c.reloptions FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_am m ON m.oid = c.relam JOIN pg_opclass o ON o.oid = i.indclass[0]
        WHERE i.indrelid = %s::regclass AND i.indkey[0] = %s AND i.indisvalid AND m.amname IN ('hnsw', 'ivfflat')
        ORDER BY c.oid
        """,
        (quoted(schema, table).as_string(connection), column.number),
    ).fetchone()
    if found is None:
        return None
    kind, operators, settings = found
    return Index(kind, _METRICS.get(operators.split("_")[1], ""), tuple(settings or ()))


def broken_indexes(connection: Connection[Any], schema: str, table: str, column: Column) -> list[sql.SQL]:
    """Of a column, left behind by a CREATE INDEX CONCURRENTLY that was interrupted; as they stand in a statement."""
    found = connection.execute(
        "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = %s::regclass AND indkey[0] = %s "
        "AND NOT indisvalid",
        (quoted(schema, table).as_string(connection), column.number),
    )
    return [sql.SQL(row[0]) for row in found]


def mark(metric: str, index: str, settings: Seq[str] = ()) -> str:
    """The comment of a column made here: its metric, which no index says while there is none, and the index to
    build."""
    return f"{_MARK}metric={metric} index={index} settings={','.join(settings)}"


def marked(connection: Connection[Any], schema: str, table: str, column: Column) -> dict[str, str]:
    """What `mark` said; empty for other columns."""
    row = connection.execute(
        "SELECT col_description(%s::regclass, %s)", (quoted(schema, table).as_string(connection), column.number)
    ).fetchone()
    comment = row[0] if row else None
    if not comment or not comment.startswith(_MARK):
        return {}
    return dict(part.split("=", 1) for part in comment.removeprefix(_MARK).split() if "=" in part)


def own_sequences(connection: Connection[Any], schema: str, table: str) -> None:
    """Before the table goes: sequences that other tables take their numbers from become theirs, as LIKE leaves them
    with the first one. Then `DROP TABLE` takes nothing away from anybody."""
    found = connection.execute(
        """
        SELECT format('%%I.%%I', sn.nspname, s.relname), format('%%I.%%I.%%I', dn.nspname, c.relname, a.attname)
        FROM pg_depend own JOIN pg_class s ON s.oid = own.objid AND s.relkind = 'S'
        JOIN pg_namespace sn ON sn.oid = s.relnamespace
        JOIN pg_depend used ON used.refobjid = s.oid AND used.classid = 'pg_attrdef'::regclass
        JOIN pg_attrdef d ON d.oid = used.objid AND d.adrelid <> own.refobjid
        JOIN pg_class c ON c.oid = d.adrelid JOIN pg_namespace dn ON dn.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
        WHERE own.refobjid = %s::regclass AND own.deptype = 'a' AND own.classid = 'pg_class'::regclass
        """,
        (quoted(schema, table).as_string(connection),),
    ).fetchall()
    for sequence, column in found:  # both quoted by format()
        connection.execute(sql.SQL("ALTER SEQUENCE {} OWNED BY {}").format(sql.SQL(sequence), sql.SQL(column)))


def advance_identities(connection: Connection[Any], schema: str, table: str) -> None:
    """A copied identity column begins at 1 again: let it go on behind the greatest number that is there."""
    where = quoted(schema, table)
    found = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attidentity <> '' AND NOT attisdropped",
        (where.as_string(connection),),
    ).fetchall()
    greatest = sql.SQL("SELECT setval(pg_get_serial_sequence({2}, {3}), max({0})) FROM {1} HAVING max({0}) IS NOT NULL")
    for (column,) in found:
        names = (sql.Literal(where.as_string(connection)), sql.Literal(column))
        connection.execute(greatest.format(sql.Identifier(column), where, *names))


def copy_grants(connection: Connection[Any], schema: str, source: str, target: str) -> None:
    """Whoever may use the one may use the other."""
    found = connection.execute(
        "SELECT privilege_type, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END, "
        "is_grantable FROM pg_class, aclexplode(relacl) WHERE oid = %s::regclass AND grantee <> relowner",
        (quoted(schema, source).as_string(connection),),
    ).fetchall()
    for privilege, who, grantable in found:
        connection.execute(
            sql.SQL("GRANT {} ON {} TO {}{}").format(
                sql.SQL(privilege),
                quoted(schema, target),
                sql.SQL(who),
                sql.SQL(" WITH GRANT OPTION" if grantable else ""),
            )
        )


def note_switch(
    connection: Connection[Any], schema: str, name: tuple[str, str], was: tuple[str, str], kept: str | None
) -> None:
    """What a switch does, in its own transaction. `name` and `was` are a table and its column of vectors."""
    notes = quoted(schema, "lemni_switches")
    connection.execute(
        sql.SQL("CREATE TABLE IF NOT EXISTS {} (name text[] PRIMARY KEY, was text[] NOT NULL, kept text)").format(notes)
    )
    values = (sql.Literal(one) for one in (list(name), list(was), kept))
    connection.execute(
        sql.SQL(
            "INSERT INTO {} VALUES ({}, {}, {}) "
            "ON CONFLICT (name) DO UPDATE SET was = EXCLUDED.was, kept = EXCLUDED.kept"
        ).format(notes, *values)
    )


def switched(
    connection: Connection[Any], schema: str, name: tuple[str, str], was: tuple[str, str]
) -> tuple[str | None] | None:
    """What the last switch of `name` kept the old one as, if it was the one that gave it to `was`; else None."""
    notes = quoted(schema, "lemni_switches")
    if connection.execute("SELECT to_regclass(%s)", (notes.as_string(connection),)).fetchone() == (None,):
        return None
    found = sql.SQL("SELECT kept FROM {} WHERE name = {} AND was = {}")
    row = connection.execute(found.format(notes, sql.Literal(list(name)), sql.Literal(list(was)))).fetchone()
    return (row[0],) if row else None
