"""What clients send: every spelling of inline data, its limits, and lists that mix all forms."""

from __future__ import annotations

import asyncio
import base64
import random
import textwrap
from collections.abc import AsyncIterator
from urllib.parse import quote_from_bytes

import pytest

from lemni.config import MediaSettings
from lemni.errors import InvalidRequest
from lemni.media.fetch import Fetcher
from lemni.media.sources import Source, decode, load, load_all
from tests.media.site import Site, answer

SETTINGS = MediaSettings.model_validate({"max_media_mib": 1, "media_allow_hosts": "127.0.0.1"})
# All 256 values: both digits in which the alphabets differ occur.
DATA = bytes(range(256)) * 3 + b"\xfb\xff\xfe"
STANDARD = base64.b64encode(DATA).decode()
URL_SAFE = base64.urlsafe_b64encode(DATA).decode()


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    fetcher = Fetcher(SETTINGS)
    yield fetcher
    await fetcher.close()


def refused(source: str | bytes, settings: MediaSettings = SETTINGS) -> str:
    with pytest.raises(InvalidRequest) as caught:
        decode(source, "image", settings)
    assert caught.value.item is None
    assert len(caught.value.message) < 200
    return caught.value.message


@pytest.mark.parametrize(
    "source",
    [
        DATA,
        STANDARD,
        URL_SAFE,
        STANDARD.rstrip("="),
        "\n".join(textwrap.wrap(STANDARD, 76)) + "\r\n",
        f"data:image/png;base64,{STANDARD}",
        f"data:;base64,{STANDARD}",
        f"DATA:image/png;BASE64,{STANDARD}",
        f"data:image/png;charset=utf-8;name=a.png;base64,{STANDARD}",
        f"data:image/png; base64 ,{URL_SAFE}",
        f"data:image/png;base64,{STANDARD.replace('+', '%2B').replace('/', '%2F').replace('=', '%3D')}",
        f"data:image/png,{quote_from_bytes(DATA)}",
        f" data:,{quote_from_bytes(DATA, safe='')}",
    ],
    ids=lambda source: str(source[:30]),
)
async def test_every_inline_form(source: str | bytes, fetcher: Fetcher) -> None:
    assert await load(source, "image", SETTINGS, fetcher) == DATA


@pytest.mark.parametrize("length", range(8))
def test_base64_of_every_length_with_and_without_padding(length: int) -> None:
    data = random.Random(length).randbytes(length + 1)
    padded = base64.b64encode(data).decode()
    assert decode(padded, "audio", SETTINGS) == decode(padded.rstrip("="), "audio", SETTINGS) == data


def test_what_is_no_source() -> None:
    for source in ("/home/me/cat.jpg?", "cat!", "a", "abcde", "ab=cd", "käse", "QUJD\x00"):
        assert refused(source) == "the image is neither an http(s) URL nor a data URI nor base64"
    for scheme in ("file", "ftp", "gopher", "s3", "javascript", "FILE"):
        message = refused(f"{scheme}:///etc/passwd")
        assert message == f"the image is a URL of scheme {scheme.lower()!r}; it must be http, https or data"
    assert "without a comma" in refused("data:image/png;base64")
    assert "whose data is not base64" in refused("data:image/png;base64,***")
    for source in ("", b"", " \n", "data:,", "data:image/png;base64,", "===="):
        assert refused(source) == "the image is empty"


def test_long_input_is_never_echoed() -> None:
    assert "x" * 50 not in refused("x" * 1000 + "!")
    assert "x" * 50 not in refused("x" * 1000 + "://")


def test_the_size_limit_is_that_of_the_file() -> None:
    exact = bytes(2**20)
    for source in (exact, base64.b64encode(exact).decode(), "data:," + "%00" * 2**20):
        assert decode(source, "image", SETTINGS) == exact
    over = exact + b"\0"
    for source in (over, base64.b64encode(over).decode(), "data:," + "%00" * len(over), "A" * 10**7):
        assert refused(source) == "the image is larger than 1 MiB"


async def test_a_request_with_every_form_in_its_order(fetcher: Fetcher) -> None:
    async with Site({f"/{i}": answer(b"%d" % i) for i in range(40)}) as site:
        sources = [Source("image", f"{site.url}/{i}" if i % 3 else b"%d" % i, i, f"input[{i}]") for i in range(40)]
        found = await load_all(sources, SETTINGS, fetcher)
        assert found == [b"%d" % i for i in range(40)]
        assert 1 < site.most_at_once <= 8


async def test_the_guilty_item_is_named_and_the_others_are_given_up(fetcher: Fetcher) -> None:
    async with Site({"/slow": answer(b"x", delay_s=30), "/gone": answer(b"", status="404 Not Found")}) as site:
        sources = [
            Source("image", f"{site.url}/slow", 4, "texts[4]"),
            Source("audio", f"{site.url}/gone", 7, "images[7]"),
        ]
        with pytest.raises(InvalidRequest, match="status 404") as caught:
            await asyncio.wait_for(load_all(sources, SETTINGS, fetcher), 10)
        assert (caught.value.item, caught.value.param) == (7, "images[7]")
        assert caught.value.message.startswith("images[7]: the audio at ")
        await site.until_idle()


async def test_all_files_of_a_request_together_have_a_limit(fetcher: Fetcher) -> None:
    settings = SETTINGS.model_copy(update={"max_request_media_mib": 2})
    sources = [Source("image", bytes(2**19), i, f"images[{i}]") for i in range(5)]
    assert len(await load_all(sources[:4], settings, fetcher)) == 4
    with pytest.raises(InvalidRequest, match="of this request are larger than 2 MiB together") as caught:
        await load_all(sources, settings, fetcher)
    assert (caught.value.item, caught.value.param) == (4, "images[4]")


async def test_no_sources(fetcher: Fetcher) -> None:
    assert await load_all([], SETTINGS, fetcher) == []
