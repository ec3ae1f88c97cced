"""What a client is given: inputs and settings that make no sense are named before anything is sent, the environment is
read, and what is sent is only what was given."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lemni
from lemni import Audio, Image, Mixed, Pair
from lemni.client import Retries, StatusError
from lemni.errors import ConfigError, InvalidRequest
from tests.client.asking import Asking
from tests.client.zoo import DENSE, KEY, Zoo

pytestmark = pytest.mark.timeout(60)

TEXTS = ["A cat sits on the mat.", "", "日本語のテキスト 🙂", "word " * 100, "Eine Katze.", "x"]
LONG = "word " * 600
QUERY = "Where do cats sleep?"
DOCUMENTS = ["Rust is a language.", "Cats sleep on sofas.", "A dog runs.", "abc", "the mat"]


# What makes no sense.


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda client: client.embed(None), "texts is of type NoneType"),
        (lambda client: client.embed(["a", 3]), r"texts\[1\] is of type int"),
        (lambda client: client.embed(["a", "\ud800"]), r"texts\[1\] is no valid Unicode"),
        (lambda client: client.embed("a", prompt="\ud800"), "JSON"),
        (lambda client: client.rerank("q", "text"), "documents is a text"),
        (lambda client: client.rerank("q", ["a", None]), r"documents\[1\] is of type NoneType"),
        (lambda client: client.rerank(b"q", ["a"]), "query is of type bytes"),
        (lambda client: client.rerank("\udc00", ["a"]), "query is no valid Unicode"),
        (lambda client: client.score(["a"]), r"pairs\[0\] is of type str"),
        (lambda client: client.score(Pair("a", "b")), "pairs is of type Pair"),
        (lambda client: client.score(None), "pairs is of type NoneType"),
        (lambda client: client.score([Pair("a", None)]), r"pairs\[0\].second is of type NoneType"),  # type: ignore
        (lambda client: client.score([Pair("a", "b"), Pair("\ud800", "b")]), r"pairs\[1\].first is no valid"),
        (lambda client: client.classify([Image(b"")]), r"texts\[0\] is of type Image"),
        (lambda client: client.multi_vector(5), "items is of type int"),
        (lambda client: client.embed("a", deadline_s=0), "deadline_s is 0"),
        (lambda client: client.embed("a", deadline_s="1"), "deadline_s is '1'"),
    ],
)
def test_wrong_inputs_are_named_and_nothing_is_sent(
    ask_zoo: Callable[..., Asking], call: Callable[[Any], Any], words: str
) -> None:
    client = ask_zoo(model=DENSE, batch_size=1)
    with pytest.raises(InvalidRequest, match=words):
        call(client)
    assert client.statistics.requests == 0


@pytest.mark.parametrize("method", ["embed", "sparse", "multi_vector", "classify"])
def test_unknown_keywords(ask_zoo: Callable[..., Asking], method: str) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'dimension'"):
        getattr(ask_zoo(), method)(["a"], dimension=3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"base_url": ""}, "base_url is ''"),
        ({"base_url": []}, r"base_url is \[\]"),
        ({"base_url": " , "}, "base_url"),
        ({"base_url": "localhost:7997"}, "must begin with http://"),
        ({"base_url": "unix:///tmp/socket"}, "must begin with http://"),
        ({"base_url": "ftp://host"}, "must begin with http://"),
        ({"base_url": [None]}, "base_url is None"),
        ({"base_url": "http://"}, "no host"),
        ({"base_url": "http://host:port"}, "base_url"),
        ({"base_url": "http://host:99999"}, "base_url"),
        ({"base_url": "http://[::1"}, "base_url"),
        ({"base_url": "http://a b"}, "base_url"),
        ({"base_url": "http://host/?a=b"}, "query"),
        ({"base_url": "http://host/#a"}, "fragment"),
        ({"encoding": "int8"}, "encoding is 'int8'"),
        ({"timeout_s": 0}, "timeout_s is 0"),
        ({"timeout_s": None}, "timeout_s is None"),
        ({"timeout_s": float("inf")}, "timeout_s is inf"),
        ({"timeout_s": float("nan")}, "timeout_s is nan"),
        ({"deadline_s": -1}, "deadline_s is -1"),
        ({"concurrency": 2.5}, "concurrency is 2.5"),
        ({"concurrency": True}, "concurrency is True"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_bytes": "1"}, "batch_bytes is '1'"),
        ({"retries": "3"}, "retries is '3'"),
        ({"retries": -1}, "times is -1"),
        ({"headers": {"a b": "c"}}, "'a b' is no name"),
        ({"headers": {"a": 3}}, "header 'a'"),
        ({"headers": {"a": "b\r\nc: d"}}, "header 'a'"),
        ({"headers": {"a": "ä"}}, "header 'a'"),
        ({"headers": [("authorization", "secret")]}, "headers is of type list"),
        ({"api_key": "secret\n"}, "header 'authorization'"),
        ({"api_key": b"secret"}, "api_key is of type bytes"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], words: str) -> None:
    for kind in (lemni.Client, lemni.AsyncClient):
        with pytest.raises(InvalidRequest, match=words) as caught:
            kind(**settings)
        assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@host:80",
        "ftp://user:hunter2@host",
        "user:hunter2@host:7997",
        "http://user:hunter2@[::1",
        "http://host?key=hunter2",
        "http://host:?key=hunter2@",
    ],
)
def test_a_password_is_not_shown(url: str) -> None:
    with pytest.raises(InvalidRequest, match="base_url") as caught:
        lemni.Client(url)
    assert "hunter2" not in "".join(traceback.format_exception_only(caught.value))
    assert caught.value.__cause__ is None  # which would say it


def test_ipv6(zoo: Zoo) -> None:
    with lemni.Client("http://[::1]:9", retries=0) as client:
        assert client.base_url == "http://[::1]:9"
        assert client.health() is False


# The environment.


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A working directory without a `.env`, and no variables."""
    monkeypatch.delenv("LEMNI_URL", raising=False)
    monkeypatch.delenv("LEMNI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_environment(zoo: Zoo, empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with lemni.Client() as client:
        assert client.base_url == "http://127.0.0.1:7997"
    (empty / ".env").write_text(f"LEMNI_URL={zoo.guarded}/v1\nLEMNI_API_KEY=wrong\n")
    (empty / "below").mkdir()
    monkeypatch.chdir(empty / "below")
    with lemni.Client(model=DENSE, retries=0) as client:
        assert client.base_url == f"{zoo.guarded}/v1"
        with pytest.raises(StatusError, match="401"):
            client.embed("a")
    monkeypatch.setenv("LEMNI_API_KEY", f" {KEY}\n")
    with lemni.Client(model=DENSE) as client:
        assert client.embed("a").shape == (384,)
    with lemni.Client(zoo.url, model=DENSE) as client:
        assert client.base_url == zoo.url
    monkeypatch.setenv("LEMNI_URL", "http://a, http://b")
    with lemni.Client() as client:
        assert client._connection.urls == ["http://a", "http://b"]
    monkeypatch.setenv("LEMNI_URL", "  ")
    with lemni.Client() as client:
        assert client.base_url == "http://127.0.0.1:7997"


def test_a_file_that_cannot_be_read(empty: Path) -> None:
    (empty / ".env").write_bytes(b"A=\xff\xfe")
    with pytest.raises(ConfigError, match=r"\.env cannot be read"):
        lemni.Client()


# What is sent.


def test_mixed_items_travel(sync: bool) -> None:
    from tests.client.misbehaving import misbehaving

    with misbehaving() as server:
        client = Asking(sync, server.url, model="m")
        client.embed([Mixed(("a", Image(b"GIF8"))), Audio(b"OggS")])
        client.end()
        assert server.bodies[0]["input"] == [
            {"content": [{"text": "a"}, {"image": "data:image/gif;base64,R0lGOA=="}]},
            {"audio": "data:audio/ogg;base64,T2dnUw=="},
        ]


def test_what_is_not_given_is_not_sent(sync: bool) -> None:
    from tests.client.misbehaving import misbehaving

    with misbehaving() as server:
        client = Asking(sync, server.url, headers={"X-Own": "1", "User-Agent": "mine"}, api_key="k")
        client.embed("a", dimensions=None, model=None, priority="bulk", deadline_s=5, progress=False)
        client.end()
        (seen,) = server.seen
        assert seen.body == {"input": ["a"], "encoding_format": "base64", "priority": "bulk"}
        assert (seen.headers["x-own"], seen.headers["user-agent"]) == ("1", "mine")
        assert seen.headers["authorization"] == "Bearer k"
        assert "safetensors" in seen.headers["accept"]


def test_retries_of_a_number(zoo: Zoo) -> None:
    with lemni.Client(zoo.url, retries=7) as client:
        assert client._connection.retries == Retries(times=7)
