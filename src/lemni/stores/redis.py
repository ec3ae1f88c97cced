"""Vector sets of Redis 8, over redis-py: `redis://[user@]host:6379/0?collection=KEY`, `rediss:` with TLS, or
`redis:///run/redis.sock?collection=KEY` through a Unix socket.

**Collections** are keys of vector sets. An entry is a member: its name is the id, its attributes are a JSON object in
which `text` is the text and every other field metadata, so that VSIM can filter by them. Two small keys stand beside a
set that is made here: `KEY:lemni` (a hash: what it is made for, as Redis has no empty vector sets) and, before Redis
8.4, `KEY:ids` (a sorted set of the members, to read them in order).

**Options**, `&NAME=VALUE`:

- `text`: the field of the text, `text` if not named. An entry whose metadata has this field is refused.
- `quantization`: of a new set: none (as without it; float32), int8 or binary.
- `ca`: a file with the certificates that a server's may be signed by.

**Environment**: REDISCLI_AUTH, the password, if the address has none.

**Ids** are text, in the order of their bytes.

**Numbers**: vector sets compare by cosine and by nothing else. They keep unit vectors and their lengths in float32, so
that a vector comes back up to float32's rounding, one of length 1 within 1e-6; sets in int8 or binary give back what is
left.

**Reading in pages** uses VRANGE (Redis 8.4) or `KEY:ids`. A set made by others on an older Redis, or with members that
`KEY:ids` lacks, has all its members listed at once and sorted here: memory for the ids, not for the entries. This is
tested against Redis 8.2; VRANGE is written by its documentation.

**write** adds 100 members in one transaction, and returns when the append-only file is on disk if the server keeps one
(WAITAOF: with `appendfsync everysec` up to a second). Without that file Redis is as durable as its snapshots, and
`describe` says so.

**switch** renames the keys in one transaction (MULTI); what had the name is called `KEY_old`. `KEY:lemni` notes what
was done, so that the same call, made again by who was killed before he had the answer, gives that answer. In a cluster
both names must be in one slot: `{docs}` and `{docs}_new`.

**Limits**: Redis 8.0 or later. Valkey, and Redis before 8, have no vector sets. Dense vectors only.
"""

from __future__ import annotations

import bisect
import itertools
import json
import os
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.errors import StoreError, missing_extra
from lemni.stores.base import Description, Id, Page, Schema, Store, VectorKind
from lemni.stores.place import Place

try:
    import redis
    from redis.backoff import ExponentialBackoff
    from redis.retry import Retry
except ImportError as error:
    raise missing_extra("redis", "redis", "Redis") from error

_CHUNK = 100  # members in one transaction: other clients wait for so long
_QUANTIZATION = {"none": "NOQUANT", "int8": "Q8", "binary": "BIN"}
_TYPES = {"f32": "none", "int8": "int8", "q8": "int8", "bin": "binary"}  # as VINFO calls them
_COMPANIONS = ("", ":lemni", ":ids")


class Redis:
    """One vector set (`Store`)."""

    kinds: tuple[VectorKind, ...] = ("dense",)
    id_type = "str"

    def __init__(self, place: Place) -> None:
        place.check_options("text", "quantization", "ca")
        self._place = place
        self._text = place.option("text", "text")
        self._said_as(place.collection)
        if not place.collection:
            raise StoreError(f"{self.name}: name a key: ?collection=KEY")
        if (value := place.option("quantization", "none")) not in _QUANTIZATION:
            raise StoreError(f"{self.name}: quantization={value}: choose {', '.join(_QUANTIZATION)}")
        database = place.path if place.host else ""
        if database and not database.isdigit():
            raise StoreError(f"{self.name}: the path is the number of a database, not {database!r}")
        where: dict[str, Any] = (
            {"host": place.host, "port": place.port or 6379, "db": int(database or 0)}
            if place.host
            else {"unix_socket_path": place.path}
        )
        if place.scheme == "rediss":
            where |= {"ssl": True, "ssl_ca_certs": place.option("ca") or None}
        password = place.password or os.environ.get("REDISCLI_AUTH")
        again = Retry(ExponentialBackoff(cap=0.5, base=0.05), 3)
        self._client: Any = redis.Redis(
            **where, username=place.user, password=password, retry=again, socket_connect_timeout=10
        )
        with self._said():
            self._check_server()

    def _said_as(self, collection: str) -> None:
        self.collection = collection
        self.name = f"{replace(self._place, collection='', options={})}, collection {collection}"

    def _check_server(self) -> None:
        """Raises StoreError if it has no vector sets."""
        try:
            commands = {name.decode().upper() for name in self._client.command_list(pattern="v*")}
        except redis.ResponseError:  # before Redis 7
            self._client.ping()
            commands = set()
        if "VADD" not in commands:
            server = self._client.info("server")
            kind = "Valkey" if "valkey_version" in server else "Redis"
            version = server.get("valkey_version") or server["redis_version"]
            raise StoreError(f"{self.name}: vector sets need Redis 8.0 or later; this is {kind} {version}")
        self._ranges = "VRANGE" in commands
        self._is_member = "VISMEMBER" if "VISMEMBER" in commands else "VEMB"

    @contextmanager
    def _said(self) -> Iterator[None]:
        """What Redis or its client says, as a StoreError."""
        try:
            yield
        except (redis.RedisError, UnicodeError) as error:
            raise StoreError(f"{self.name}: {error}") from error

    def _run(self, *command: Any) -> Any:
        with self._said():
            return self._client.execute_command(*command)

    def _all(self, commands: Seq[tuple[Any, ...]], together: bool = False) -> list[Any]:
        """The answers to several commands, sent at once; `together` as a transaction."""
        with self._said(), self._client.pipeline(transaction=together) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return list(pipeline.execute())

    # --- what is there

    def _key(self, companion: str = "", collection: str | None = None) -> str:
        return (self.collection if collection is None else collection) + companion

    def exists(self) -> bool:
        with self._said():
            return bool(self._client.exists(self._key(), self._key(":lemni")))

    def _found(self) -> None:
        if not self.exists():
            raise StoreError(f"{self.name}: there is no such key; vector sets there: {self._others() or 'none'}")

    def _others(self) -> str:
        """Some of their names."""
        cursor, names = 0, []
        for _ in range(100):
            with self._said():
                cursor, found = self._client.scan(cursor, count=1000, _type="vectorset")
            names += [name.decode(errors="replace") for name in found]
            if cursor == 0 or len(names) >= 20:
                break
        return ", ".join(sorted(names)[:20])

    def _settings(self) -> tuple[int | None, str, str | None]:
        """Dimensions, quantization, and HNSW's M if it is not the server's own."""
        with self._said():
            if self._client.exists(self._key()):
                found = self._run("VINFO", self._key())
                if not isinstance(found, dict):
                    found = dict(zip(found[::2], found[1::2], strict=True))
                told = {name.decode(): value for name, value in found.items()}
                kind = _TYPES.get(told["quant-type"].decode(), "none")
                return int(told["vector-dim"]), kind, str(int(told["hnsw-m"]))
            made = {name.decode(): value.decode() for name, value in self._client.hgetall(self._key(":lemni")).items()}
        width = made.get("dimensions")
        return int(width) if width else None, made.get("quantization", "none"), made.get("m")

    def describe(self) -> Description:
        self._found()
        width, kind, _ = self._settings()
        notes = []
        if not self._appends():
            notes.append("the server keeps no append-only file: if it dies, what came after its last snapshot is lost")
        if kind != "none":
            notes.append(f"the set keeps its vectors as {kind}: they do not come back exactly")
        return Description(self.collection, self.count(), Schema(width) if width else None, notes=tuple(notes))

    def count(self) -> int:
        return int(self._run("VCARD", self._key()))

    def pages(self, size: int, *, vectors: bool = False, after: Id | None = None) -> Iterator[Page]:
        self._found()
        for members in self._members(size, None if after is None else str(after).encode()):
            yield self._page(members, vectors)

    def _members(self, size: int, after: bytes | None) -> Iterator[list[bytes]]:
        """Names in the order of their bytes, `size` at a time."""
        key, companion = self._key(), self._key(":ids")
        if not self._ranges and self._run("ZCARD", companion) != self.count():
            names = sorted(self._run("VRANDMEMBER", key, self.count()) or [])
            for at in range(0 if after is None else bisect.bisect_right(names, after), len(names), size):
                yield names[at : at + size]
            return
        while True:
            start = b"-" if after is None else b"(" + after
            if self._ranges:
                found = self._run("VRANGE", key, start, "+", size)
            else:
                found = self._run("ZRANGEBYLEX", companion, start, "+", "LIMIT", 0, size)
            if found:
                yield found
            if len(found) < size:
                return
            after = found[-1]

    def fetch(self, ids: Seq[Id], *, vectors: bool = True) -> Page:
        return self._page(list(dict.fromkeys(str(one).encode() for one in ids)), vectors)

    def _page(self, members: Seq[bytes], vectors: bool) -> Page:
        """Of those that are there."""
        key = self._key()
        width = self._settings()[0] or 0
        commands = [
            command
            for member in members
            for command in (
                ("VEMB", key, member, "RAW") if vectors else (self._is_member, key, member),
                ("VGETATTR", key, member),
            )
        ]
        answers = self._all(commands)
        ids: list[Id] = []
        texts: list[str | None] = []
        metadata: list[dict[str, Any]] = []
        taken: list[NDArray[np.float32]] = []
        for member, there, attributes in zip(members, answers[::2], answers[1::2], strict=True):
            if not there:
                continue
            with self._said():
                ids.append(member.decode())
            try:
                held = json.loads(attributes) if attributes else {}
            except ValueError:
                held = None
            if not isinstance(held, dict):
                raise StoreError(f"{self.name}: the attributes of id {ids[-1]!r:.100} are no JSON object")
            text = held.pop(self._text, None)
            if text is not None and not isinstance(text, str):
                raise StoreError(f"{self.name}: id {ids[-1]!r:.100}: its field {self._text!r} is no text: text=FIELD")
            texts.append(text)
            metadata.append(held)
            if vectors:
                taken.append(self._vector(member, there))
        found = np.stack(taken) if taken else np.empty((0, width), np.float32)
        return Page(ids, texts, metadata, found if vectors else None)

    def _vector(self, member: bytes, raw: Any) -> NDArray[np.float32]:
        """Of the answer to VEMB with RAW: how it is kept, the bytes, its length."""
        kind, data, length = raw[:3]
        if kind == b"f32":
            return np.asarray(np.frombuffer(data, np.float32) * np.float32(length), np.float32)
        return np.array([float(number) for number in self._run("VEMB", self._key(), member)], np.float32)

    def search(self, vectors: Any, k: int) -> list[list[Id]]:
        self._found()
        commands = [
            ("VSIM", self._key(), "FP32", _bytes(vector), "COUNT", k, "EF", min(1_000_000, max(200, 2 * k)))
            for vector in vectors
        ]
        with self._said():
            return [[name.decode() for name in found] for found in self._all(commands)]

    # --- what is made

    def sibling(self, collection: str) -> Store:
        return Redis(replace(self._place, collection=collection))

    def create(self, schema: Schema, like: Store | None = None) -> None:
        if schema.kind != "dense" or schema.metric != "cosine":
            raise StoreError(
                f"{self.name}: vector sets compare dense vectors by cosine, "
                f"and not {schema.kind} ones by {schema.metric}"
            )
        if self.exists():
            width = self._settings()[0]
            if width is not None and width != schema.dimensions:
                raise StoreError(f"{self.name}: it exists with {width} dimensions; asked for are {schema.dimensions}")
            return
        made: dict[str, Any] = {"dimensions": schema.dimensions}
        quantization, m = self._place.option("quantization"), None
        if isinstance(like, Redis):
            _, held, m = like._settings()
            quantization = quantization or held
        made |= {"quantization": quantization or "none"} | ({"m": m} if m else {})
        with self._said():
            self._client.hset(self._key(":lemni"), mapping=made)

    def write(self, page: Page) -> None:
        self._found()
        assert page.vectors is not None
        width, kind, m = self._settings()
        commands: list[tuple[Any, ...]] = []
        for id_, text, metadata, vector in zip(page.ids, page.texts, page.metadata, page.vectors, strict=True):
            if width is not None and len(vector) != width:
                raise StoreError(f"{self.name}: the vector of id {id_!r:.100} has {len(vector)} numbers, not {width}")
            if self._text in metadata:
                raise StoreError(
                    f"{self.name}: the metadata of id {id_!r:.100} has a field {self._text!r}, where the text is kept: "
                    "keep that in another one, text=FIELD"
                )
            held = metadata if text is None else {self._text: text, **metadata}
            try:
                attributes = json.dumps(held, ensure_ascii=False, allow_nan=False).encode() if held else b""
                member = str(id_).encode()
            except (TypeError, ValueError) as error:
                raise StoreError(f"{self.name}: id {id_!r:.100} cannot be kept as JSON: {error}") from error
            more = ("M", m) if m else ()
            commands.append(("VADD", self._key(), "FP32", _bytes(vector), member, _QUANTIZATION[kind], *more))
            commands.append(("VSETATTR", self._key(), member, attributes))
            if not self._ranges:
                commands.append(("ZADD", self._key(":ids"), 0, member))
        step = _CHUNK * (2 if self._ranges else 3)
        for at in range(0, len(commands), step):
            self._all(commands[at : at + step], together=True)
        self._wait()

    def _wait(self) -> None:
        """Until what was said is on disk, if the server keeps an append-only file."""
        if self._appends():
            self._run("WAITAOF", 1, 0, 0)

    def _appends(self) -> bool:
        with self._said():
            return bool(self._client.info("persistence").get("aof_enabled"))

    def switch(self, name: str) -> str | None:
        if not self.exists():
            with self._said():
                was, kept_as = self._client.hmget(self._key(":lemni", name), "was", "kept")
                if was == self.collection.encode():
                    self._said_as(name)
                    return kept_as.decode() or None
        self._found()
        if name == self.collection:
            return None
        with self._said(), self._client.pipeline() as pipeline:
            while True:
                try:
                    pipeline.watch(*(self._key(end, one) for one in (name, self.collection) for end in _COMPANIONS))
                    there = {
                        self._key(end, one)
                        for one in (name, self.collection)
                        for end in _COMPANIONS
                        if pipeline.exists(self._key(end, one))
                    }
                    kept = None
                    if name in there or f"{name}:lemni" in there:
                        kept = self._free(name, pipeline)
                    pipeline.multi()
                    for old, new in ((name, kept), (self.collection, name)):
                        for end in _COMPANIONS:
                            if new is not None and self._key(end, old) in there:
                                pipeline.renamenx(self._key(end, old), self._key(end, new))
                    done = {"was": self.collection, "kept": kept or ""}
                    pipeline.hset(self._key(":lemni", name), mapping=done)
                    pipeline.execute()
                    break
                except redis.WatchError:  # somebody wrote just now
                    continue
        self._wait()
        self._said_as(name)
        return kept

    def _free(self, name: str, client: Any) -> str:
        """`NAME_old`, or with a number behind it; watched, as RENAMENX does nothing where somebody takes it."""
        for number in itertools.count(1):
            kept = f"{name}_old" if number == 1 else f"{name}_old{number}"
            keys = [self._key(end, kept) for end in _COMPANIONS]
            client.watch(*keys)
            if not client.exists(*keys):
                return kept
        raise AssertionError("there is no last number")

    def drop(self) -> None:
        with self._said():
            self._client.unlink(*(self._key(end) for end in _COMPANIONS))

    def close(self) -> None:
        self._client.close()


def _bytes(vector: Any) -> bytes:
    return np.ascontiguousarray(vector, "<f4").tobytes()
