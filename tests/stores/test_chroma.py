"""Chroma: the contract in a folder and behind a server that the installed package runs, and its own traits."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import chromadb
import httpx
import numpy as np
import pytest
from chromadb.api.types import EmbeddingFunction
from chromadb.utils.embedding_functions import register_embedding_function

from lemni.errors import StoreError
from lemni.stores import open_store
from lemni.stores.base import Page, Schema, Store
from tests.stores.chroma_server import chroma_server
from tests.stores.contract import WIDTH, StoreContract, ids, page

Opened = Callable[[str], Store]

# Chroma's HTTP client leaves its connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chroma") / "kept"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with chroma_server(tmp_path_factory.mktemp("server")) as port:
        yield port


@pytest.fixture(scope="module")
def opened(folder: Path) -> Iterator[Opened]:
    stores: list[Store] = []

    def opened(collection: str) -> Store:
        stores.append(open_store(f"chroma:{folder}?collection={collection}"))
        return stores[-1]

    yield opened
    for one in stores:
        one.close()
        one.close()


@pytest.fixture
def store(opened: Opened) -> Store:
    return opened(f"docs{next(ids)}")


def vectors(one: Page) -> Any:
    return np.asarray(one.vectors)


class TestFolder(StoreContract):
    @pytest.fixture
    def opened(self, folder: Path) -> Opened:
        return lambda collection: open_store(f"chroma:{folder}?collection={collection}")


class TestServer(StoreContract):
    @pytest.fixture
    def opened(self, port: int) -> Opened:
        return lambda collection: open_store(f"chroma://127.0.0.1:{port}?collection={collection}")


def test_opening_makes_nothing(tmp_path: Path) -> None:
    one = open_store(f"chroma:{tmp_path}/none?collection=docs")
    assert not one.exists()
    with pytest.raises(StoreError, match=r"collection docs: there is no such collection; there are: none"):
        one.describe()
    one.drop()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_collection_names_those_there_are(store: Store) -> None:
    store.create(Schema(WIDTH))
    with pytest.raises(StoreError, match=f"there are: .*{store.collection}"):
        store.sibling("nothing").count()


def test_the_newer_entry_has_nothing_of_the_older(store: Store) -> None:
    store.create(Schema(WIDTH))
    old = page(4, seed=1)
    store.write(replace(old, metadata=[{"a": 1, "b": "x", "chroma:uri": "file:x"}] * 3 + [{"b": 2}]))
    # A text less, metadata less, another type of it, and all as before but the URI.
    texts = [None, "new", "new", old.texts[3]]
    metadata: list[dict[str, Any]] = [
        {"a": 1, "chroma:uri": "file:x"},
        {},
        {"a": "1", "chroma:uri": "file:y"},
        {"b": 2},
    ]
    new = Page(old.ids, texts, metadata, vectors(page(4, seed=2)))
    store.write(new)
    found = store.fetch(old.ids)
    assert (found.ids, found.texts, found.metadata) == (new.ids, texts, metadata)
    np.testing.assert_allclose(vectors(found), vectors(new), atol=1e-6)


def test_what_chroma_would_lose_is_refused_by_name(store: Store) -> None:
    store.create(Schema(WIDTH))
    for value in ({"deep": 1}, [1, "x"], [1, 2.5], float("nan"), float("inf"), 2**63, [2**63], b"x"):
        entries = page(2)
        with pytest.raises(StoreError, match=r"metadata 'odd' of entry '1' is "):
            store.write(replace(entries, metadata=[{}, {"odd": value}]))
    assert store.count() == 0
    kept = {"list": ["a", "b"], "numbers": [1, 2], "big": 2**63 - 1, "small": -(2**63), "tiny": 5e-324, "good": [True]}
    store.write(replace(page(2), metadata=[{**kept, "none": None, "empty": []}, {}]))
    assert store.fetch(["0"]).metadata == [kept]


def test_more_than_chroma_takes_at_once(store: Store) -> None:
    many = chromadb.PersistentClient(store._place.path).get_max_batch_size() + 3  # type: ignore[attr-defined]
    store.create(Schema(WIDTH))
    entries = page(many)
    store.write(entries)
    assert store.count() == many
    names = [name for one in store.pages(many) for name in one.ids]
    assert names == entries.ids  # as they came
    assert [one.ids for one in store.pages(5, after=names[-4])] == [names[-3:]]
    found = store.fetch(names[::-1])
    assert found.ids == names[::-1]
    np.testing.assert_allclose(vectors(found), vectors(entries)[::-1], atol=1e-6)


def test_an_overwritten_entry_keeps_its_place(store: Store) -> None:
    store.create(Schema(WIDTH))
    store.write(page(6))
    store.write(page(2, start=2, seed=3))
    assert [one.ids for one in store.pages(3)] == [["0", "1", "2"], ["3", "4", "5"]]


def test_after_an_id_that_is_not_there(store: Store) -> None:
    store.create(Schema(WIDTH))
    store.write(page(2))
    with pytest.raises(StoreError, match="no entry has the id 'gone'"):
        list(store.pages(2, after="gone"))


def test_numbers_become_texts(store: Store) -> None:
    store.create(Schema(WIDTH))
    store.write(page(2, names=int))
    assert store.fetch([1]).ids == ["1"]
    assert [one.ids for one in store.pages(2, after=0)] == [["1"]]


@register_embedding_function
class Untouchable(EmbeddingFunction):  # type: ignore[type-arg]
    """One that must not be run, nor, once a collection has it, built from what the collection says of it."""

    may_be_built = True

    def __init__(self) -> None:
        pass

    def __call__(self, input: Any) -> Any:
        raise AssertionError("it was run")

    @staticmethod
    def name() -> str:
        return "untouchable"

    def get_config(self) -> dict[str, Any]:
        return {}

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> EmbeddingFunction:  # type: ignore[type-arg]
        assert Untouchable.may_be_built
        return Untouchable()


def test_an_embedding_function_is_named_and_not_touched(
    opened: Opened, folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create(Schema(WIDTH))  # opens the folder
    name = f"docs{next(ids)}"
    chromadb.PersistentClient(folder).create_collection(name, embedding_function=Untouchable())
    monkeypatch.setattr(Untouchable, "may_be_built", False)
    one = opened(name)
    one.write(page(3))
    assert one.search(vectors(page(3)), 1) == [["0"], ["1"], ["2"]]
    assert [len(part) for part in one.pages(2, vectors=True)] == [2, 1]
    assert one.describe().notes == (
        "applications that ask with texts embed them by its stored embedding function: untouchable",
    )
    new = one.sibling(f"{name}_new")
    new.create(Schema(WIDTH), like=one)
    assert new.describe().notes == ()


def test_settings_are_taken_over(opened: Opened, folder: Path, store: Store) -> None:
    store.create(Schema(WIDTH))
    client = chromadb.PersistentClient(folder)
    settings: Any = {"space": "ip", "ef_construction": 40, "ef_search": 30, "max_neighbors": 8, "sync_threshold": 500}
    named = [f"docs{next(ids)}" for _ in range(4)]
    configuration: Any = {"hnsw": settings}
    client.create_collection(named[0], metadata={"team": "x"}, configuration=configuration, embedding_function=None)
    client.create_collection(named[1], metadata={"team": "y", "hnsw:space": "l2", "hnsw:M": 9}, embedding_function=None)
    for old, new in ((named[0], named[2]), (named[1], named[3])):
        opened(new).create(Schema(2 * WIDTH, "cosine"), like=opened(old))
    modern, legacy = (client.get_collection(name, embedding_function=None) for name in named[2:])
    assert modern.metadata == {"team": "x"}
    assert legacy.metadata == {"team": "y"}
    assert {key: modern.configuration_json["hnsw"][key] for key in settings} == {**settings, "space": "cosine"}
    assert legacy.configuration_json["hnsw"]["max_neighbors"] == 9
    assert legacy.configuration_json["hnsw"]["space"] == "cosine"
    opened(named[0]).write(page(1))
    assert opened(named[0]).describe().schema == Schema(WIDTH, "dot")
    with pytest.raises(StoreError, match=r"8 dimensions by dot, and 8 by cosine are wanted"):
        opened(named[0]).create(Schema(WIDTH))


class TestSwitch:
    """What a reader of `name` gets, whenever the switch is killed."""

    def two(self, opened: Opened) -> tuple[str, str]:
        name = f"live{next(ids)}"
        for seed, collection in ((1, name), (2, f"{name}_new")):
            opened(collection).create(Schema(WIDTH))
            opened(collection).write(page(3, seed=seed))
        return name, f"{name}_new"

    def seed(self, one: Store) -> int:
        found = vectors(one.fetch(["0", "1", "2"]))
        return next(seed for seed in (1, 2) if np.allclose(found, vectors(page(3, seed=seed)), atol=1e-6))

    def test_undoing_gives_the_names_back(self, opened: Opened) -> None:
        name, new = self.two(opened)
        kept = opened(new).switch(name)
        assert kept == f"{name}-before-{new}"
        assert not opened(new).exists()
        assert opened(new).switch(name) == kept  # again changes nothing
        assert (self.seed(opened(name)), self.seed(opened(kept))) == (2, 1)
        assert opened(kept).switch(name) == new
        assert not opened(kept).exists()
        assert (self.seed(opened(name)), self.seed(opened(new))) == (1, 2)

    def test_killed_between_the_two_names(self, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
        name, new = self.two(opened)
        kept = f"{name}-before-{new}"
        for incoming, outgoing, served in ((new, kept, 2), (kept, new, 1)):
            opened(name)._opened().modify(name=outgoing)  # type: ignore[attr-defined]
            assert not opened(name).exists()
            assert opened(incoming).switch(name) == outgoing
            assert self.seed(opened(name)) == served
            assert self.seed(opened(outgoing)) == 3 - served

    def test_a_second_name_that_fails_leaves_all_as_it_was(
        self, opened: Opened, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name, new = self.two(opened)
        modify = chromadb.Collection.modify

        def failing(self: Any, name: Any = None, **rest: Any) -> None:
            if self.name == new:
                raise ValueError("disk full")
            modify(self, name=name, **rest)

        monkeypatch.setattr(chromadb.Collection, "modify", failing)
        with pytest.raises(StoreError, match="disk full"):
            opened(new).switch(name)
        monkeypatch.undo()
        assert (self.seed(opened(name)), self.seed(opened(new))) == (1, 2)

    def test_nothing_had_the_name(self, opened: Opened) -> None:
        name, new = self.two(opened)
        one = opened(new)
        assert one.switch(f"{name}_first") is None
        assert (one.collection, one.count()) == (f"{name}_first", 3)

    def test_a_name_that_is_kept_already(self, opened: Opened) -> None:
        name, new = self.two(opened)
        first = opened(new).switch(name)
        opened(new).create(Schema(WIDTH))
        opened(new).write(page(3, seed=1))
        second = opened(new).switch(name)
        assert (first, second) == (f"{name}-before-{new}", f"{name}-before-{new}-2")
        assert second is not None
        assert [self.seed(opened(one)) for one in (name, first, second)] == [1, 1, 2]

    def test_a_collection_that_is_not_there(self, opened: Opened) -> None:
        name, new = self.two(opened)
        opened(new).drop()
        with pytest.raises(StoreError, match="there is no such collection"):
            opened(new).switch(name)
        assert self.seed(opened(name)) == 1


def test_tenant_and_database(port: int) -> None:
    admin = chromadb.AdminClient(
        chromadb.Settings(
            chroma_api_impl="chromadb.api.fastapi.FastAPI",
            chroma_server_host="127.0.0.1",
            chroma_server_http_port=port,
        )
    )
    admin.create_tenant("acme")
    admin.create_database("mails", tenant="acme")
    one = open_store(f"chroma://127.0.0.1:{port}?collection=docs&tenant=acme&database=mails")
    one.create(Schema(WIDTH))
    one.write(page(1))
    assert one.sibling("docs").count() == 1
    assert not open_store(f"chroma://127.0.0.1:{port}?collection=docs").exists()
    with pytest.raises(StoreError, match="other"):
        open_store(f"chroma://127.0.0.1:{port}?collection=docs&tenant=acme&database=other")
    one.close()


@pytest.fixture
def guarded(port: int) -> Iterator[tuple[int, set[tuple[str | None, str | None]]]]:
    """A proxy before the server, as token checks are put there, and what it was sent."""
    seen: set[tuple[str | None, str | None]] = set()

    class Guard(BaseHTTPRequestHandler):
        def do(self) -> None:
            credentials = (self.headers["X-Chroma-Token"], self.headers["Authorization"])
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            seen.add(credentials)
            allowed = credentials in {("t0ken", None), (None, "Basic dXNlcjpzZWNyZXQ=")}
            headers = {"Content-Type": "application/json"}
            url = f"http://127.0.0.1:{port}{self.path}"
            answer = httpx.request(self.command, url, content=body, headers=headers, trust_env=False)
            content = answer.content if allowed else b'{"error": "Unauthorized", "message": "no"}'
            self.send_response(answer.status_code if allowed else 401)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = do

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Guard)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1], seen
    server.shutdown()
    thread.join()
    server.server_close()


def test_credentials_are_sent_and_not_shown(guarded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    port, seen = guarded
    with pytest.raises(StoreError):
        open_store(f"chroma://127.0.0.1:{port}?collection=docs")
    assert seen == {(None, None)}
    seen.clear()
    one = open_store(f"chroma://user:secret@127.0.0.1:{port}?collection=basic")
    one.create(Schema(WIDTH))
    assert "secret" not in one.name
    with pytest.raises(StoreError) as refused:
        open_store(f"chroma://user:geheim@127.0.0.1:{port}?collection=docs")
    assert "geheim" not in str(refused.value)
    seen.clear()
    monkeypatch.setenv("CHROMA_API_KEY", "t0ken")
    assert open_store(f"chroma://127.0.0.1:{port}?collection=basic").describe().count == 0
    assert seen == {("t0ken", None)}


def test_what_is_no_address() -> None:
    for address, said in (
        ("chroma:folder", "say which collection"),
        ("chroma:folder?collection=docs&color=red", "unknown option 'color'"),
        ("chroma://host?collection=docs&ssl=yes", "ssl is true or false"),
        ("chroma://127.0.0.1:9?collection=docs", "connect"),
    ):
        with pytest.raises(StoreError, match=said):
            open_store(address)


def test_what_is_written_survives_a_kill(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from lemni.stores import open_store; from lemni.stores.base import Schema;"
        "from tests.stores.contract import WIDTH, page; one = open_store(sys.argv[1]); one.create(Schema(WIDTH));"
        "one.write(page(20)); os.kill(os.getpid(), signal.SIGKILL)"
    )
    address = f"chroma:{tmp_path}/kept?collection=docs"
    done = subprocess.run([sys.executable, "-c", program, address], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -signal.SIGKILL
    one = open_store(address)
    found = one.fetch(page(20).ids)
    assert (found.ids, found.texts, found.metadata) == (page(20).ids, page(20).texts, page(20).metadata)
    np.testing.assert_allclose(vectors(found), vectors(page(20)), atol=1e-6)
    assert one.search(vectors(found)[:3], 1) == [["0"], ["1"], ["2"]]
    one.close()
