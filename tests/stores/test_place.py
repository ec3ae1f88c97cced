from __future__ import annotations

from dataclasses import replace

import pytest

from lemni.errors import StoreError
from lemni.stores.place import Place, parse


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("qdrant://localhost:6333?collection=docs", Place("qdrant", "localhost", 6333, collection="docs")),
        ("qdrant://h", Place("qdrant", "h")),
        ("chroma:rel/dir?collection=c", Place("chroma", path="rel/dir", collection="c")),
        ("chroma:./dir", Place("chroma", path="./dir")),
        ("chroma:/abs/dir", Place("chroma", path="/abs/dir")),
        ("chroma:///abs/dir", Place("chroma", path="/abs/dir")),
        ("chroma:", Place("chroma")),
        ("faiss:a%20b%3F%23%25", Place("faiss", path="a b?#%")),
        ("faiss:a b#c", Place("faiss", path="a b#c")),
        ("sqlite-vec:/tmp/ü 猫.db?collection=naïve", Place("sqlite-vec", path="/tmp/ü 猫.db", collection="naïve")),
        ("qdrant://h?collection=na%C3%AFve%26x%3Dy", Place("qdrant", "h", collection="naïve&x=y")),
        ("redis://[::1]:6379/0", Place("redis", "::1", 6379, path="0")),
        ("postgresql://h/db/x", Place("postgresql", "h", path="db/x")),
        ("postgresql://me:p%40s%2Fs@h/db", Place("postgresql", "h", None, "me", "p@s/s", "db")),
        ("postgresql://me:p@s:s@h:5/db", Place("postgresql", "h", 5, "me", "p@s:s", "db")),
        ("redis://:pw@h", Place("redis", "h", None, None, "pw")),
        ("redis://a%2Fb:pw@h", Place("redis", "h", None, "a/b", "pw")),
        (
            "pgvector://h/db?collection=t&text=body&empty=",
            Place("pgvector", "h", path="db", collection="t", options={"text": "body", "empty": ""}),
        ),
    ],
)
def test_an_address_in_its_parts_and_back(address: str, expected: Place) -> None:
    place = parse(address)
    assert place == expected
    assert place.password == expected.password
    assert parse(str(place)) == replace(expected, password=None)


def test_passwords_are_never_shown() -> None:
    place = parse("postgresql://me:hunter2@h:5432/db?collection=t&sslpassword=hunter2&API_Key=hunter2&token=hunter2")
    assert (place.password, place.option("sslpassword")) == ("hunter2", "hunter2")
    assert "hunter2" not in str(place)
    assert "hunter2" not in repr(replace(place, options={}))
    with pytest.raises(StoreError, match="unknown option") as caught:
        place.check_options("text")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:hun#ter2@h/db",
        "postgresql://me:hun?ter2@h/db",
        "postgresql://me:hun/ter2@h:5432/db",
        "postgresql://me:77#ter2@h/db",  # what stands before # could be a port
        "postgresql://me:77?ter2@h/db",
        "postgresql://me:77/ter2@h:5432/db",
        "postgresql://me:ter2@h:99999/db",
        "postgresql://me:ter2@h:port/db",
        "postgresql://me:ter2@[h/db",
        "postgresql://me:hun[ter2]@h/db",
        "postgresql://me:hunter2℀@h/db",
        "postgresql://me:ter2@h/db?x=1&x=2",
        "postgresql://me@h/db?password=ter2&password=ter2",
    ],
)
def test_what_is_no_address_is_refused_without_its_password(address: str) -> None:
    with pytest.raises(StoreError) as caught:
        parse(address)
    message = str(caught.value)
    assert message.startswith("postgresql://")
    assert not any(part in message for part in ("hun", "ter2", "77"))
    assert caught.value.__context__ is None or caught.value.__suppress_context__  # nor in a traceback


def test_bad_ports_and_doubled_options_are_said() -> None:
    for port in ("99999", "x", "-1", "80a"):
        with pytest.raises(StoreError, match=r"qdrant://h:.*the port is no number up to 65535"):
            parse(f"qdrant://h:{port}?collection=c")
    with pytest.raises(StoreError, match="'text' stands there twice"):
        parse("qdrant://h?text=a&collection=c&text=b")
    with pytest.raises(StoreError, match="'collection' stands there twice"):
        parse("qdrant://h?collection=a&collection=b")


def test_an_at_sign_that_is_no_password_s() -> None:
    assert parse("chroma:me@home/dir?collection=a@b") == Place("chroma", path="me@home/dir", collection="a@b")
    assert parse("qdrant://h?collection=a@b").collection == "a@b"
    assert parse("redis://me:pw@h/a@b").path == "a@b"
    assert parse("postgresql://h/a%40b").path == "a@b"


def test_unknown_options_are_named_with_those_there_are() -> None:
    place = parse("qdrant://h?collection=c&text=body&txet=body")
    place.check_options("text", "txet")
    with pytest.raises(StoreError, match=r"unknown option 'txet'; qdrant knows collection, text, vector"):
        place.check_options("text", "vector")
    assert (place.option("text"), place.option("vector"), place.option("vector", "v")) == ("body", "", "v")
