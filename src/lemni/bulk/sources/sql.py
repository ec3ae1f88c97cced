"""Rows of a query, through SQLAlchemy. They are read from front to end with a cursor that stays on the server.

A job that is resumed reads the query again, so its rows must come in the same order: a query that does not say ORDER
BY is ordered by its id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from typing import Any

from lemni.bulk.sources.base import Columns, Shard
from lemni.bulk.sources.cells import carried, check_columns, rows_of_columns
from lemni.bulk.sources.files import describe
from lemni.bulk.sources.source import HeldShard, identity_of
from lemni.errors import InvalidRequest, LemniError, missing_extra

_SECRET = re.compile(r"pass|pwd|secret|token|key|cert", re.IGNORECASE)


class SqlSource:
    """A query.

    Args:
        place: SQLAlchemy's URL of the database.
        query: one SELECT; its columns have names, one of them the id's.
    """

    random_access = False
    rereadable = True

    def __init__(self, place: str, query: str, columns: Columns) -> None:
        try:
            import sqlalchemy
        except ImportError:
            raise missing_extra("sqlalchemy", "bulk", "reading a database") from None
        try:
            url = sqlalchemy.engine.make_url(place)
        except Exception:
            raise InvalidRequest("the place of a query is no URL of SQLAlchemy, such as sqlite:///file.db") from None
        if url.drivername == "postgresql" and find_spec("psycopg2") is None:
            url = url.set(drivername="postgresql+psycopg")
        self._url = url
        self._passwords = [
            part
            for part in (url.password, *(v for k, v in url.query.items() if _SECRET.search(k)))
            if isinstance(part, str) and part
        ]
        try:
            url.get_dialect()
        except Exception as error:
            raise InvalidRequest(f"no database is called {url.drivername!r}: {error}") from None
        bare = url.set(password=None, query={k: v for k, v in url.query.items() if not _SECRET.search(k)})
        self.name = bare.render_as_string(hide_password=True)
        if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
            describe(str(url.database).removeprefix("file:").partition("?")[0])  # SQLite would make an empty one
        self.query = query.strip().rstrip(";").rstrip()
        with self._results(f"SELECT * FROM ({self.query}\n) lemni_rows WHERE 1 = 0") as result:
            there = list(result.keys())
        wanted = check_columns(there, columns, f"{self.name}: the query")
        if wanted.id is None:
            raise InvalidRequest(
                f"{self.name}: the query has no column 'id'; name the one that is the id, of {', '.join(there)}",
                param="id",
            )
        self.columns = wanted
        self._names = carried(there, wanted)
        self._counted: int | None = None

    def identity(self) -> dict[str, Any]:
        return {
            "format": "sql",
            "url": self.name,
            "query": self.query,
            "columns": identity_of(self.columns),
        }

    def count(self) -> int | None:
        if self._counted is None:
            with self._results(f"SELECT count(*) FROM ({self.query}\n) lemni_rows") as result:
                self._counted = int(result.scalar_one())
        return self._counted

    def size(self) -> int | None:
        return None

    def shards(self, rows: int) -> Iterator[Shard]:
        index = first = 0
        query = self.query
        if not re.search(r"\border\s+by\b", query, re.IGNORECASE):
            query = f"SELECT * FROM ({query}\n) lemni_rows ORDER BY {self._quoted(self.columns.id or 'id')}"
        with self._results(query, rows) as result:
            there = list(result.keys())
            for found in self._guarded(result.partitions(rows)):
                table = {name: [row[at] for row in found] for at, name in enumerate(there)}
                held = rows_of_columns(table, len(found), first, self.columns, self._names, None, ".")
                yield HeldShard(index, first, len(held), held)
                index += 1
                first += len(held)

    def _quoted(self, name: str) -> str:
        return str(self._url.get_dialect()().identifier_preparer.quote(name))

    @contextmanager
    def _results(self, query: str, rows: int = 1000) -> Iterator[Any]:
        """The result of a query, not yet fetched."""
        import sqlalchemy

        try:
            engine = sqlalchemy.create_engine(self._url, poolclass=sqlalchemy.pool.NullPool)
            connection = engine.connect()
        except ModuleNotFoundError as error:
            raise InvalidRequest(f"{self.name}: the driver of this database is not installed: {error.name}") from None
        except Exception as error:
            raise self._failed(error) from None
        with closing(connection):
            try:
                streaming = connection.execution_options(stream_results=True, yield_per=rows, no_parameters=True)
                result = streaming.exec_driver_sql(query)
            except Exception as error:
                raise self._failed(error) from None
            with closing(result):
                yield result

    def _guarded(self, parts: Iterator[Any]) -> Iterator[Any]:
        try:
            yield from parts
        except LemniError:
            raise
        except Exception as error:
            raise self._failed(error) from None

    def _failed(self, error: Exception) -> InvalidRequest:
        words = str(getattr(error, "orig", None) or error)
        for password in self._passwords:
            words = words.replace(password, "…")
        return InvalidRequest(f"{self.name}: {words.strip()}")
