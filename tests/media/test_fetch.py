"""Fetching against real servers on this machine: what is refused, what ends, and that TLS sees the right name."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from lemni.config import MediaSettings
from lemni.errors import InvalidRequest
from lemni.media.addresses import Address
from lemni.media.fetch import MAX_REDIRECTS, Fetcher, Resolve
from tests.media.site import Site, answer, drip, raw, redirect

BODY = bytes(range(256)) * 40


@asynccontextmanager
async def fetching(resolve: Resolve | None = None, **settings: object) -> AsyncIterator[Fetcher]:
    fetcher = Fetcher(MediaSettings.model_validate(settings), resolve=resolve)
    try:
        yield fetcher
    finally:
        await fetcher.close()


def local(**settings: object) -> object:
    return fetching(**{"media_allow_hosts": "127.0.0.1", "media_timeout_s": 20, **settings})


async def refused(fetcher: Fetcher, url: str) -> str:
    with pytest.raises(InvalidRequest) as caught:
        await fetcher.fetch(url, "image")
    assert caught.value.item is None
    assert len(caught.value.message) < 300
    start, reason = caught.value.message.split(" cannot be fetched: ", 1)
    assert start.startswith("the image at ")
    return reason


NOT_FROM_THERE = "this server does not fetch from its host (media_urls, media_allow_hosts)"


async def test_a_listed_host_is_fetched_from() -> None:
    async with Site({"/a b": answer(BODY), "/a%20b": answer(BODY)}) as site, local() as fetcher:
        assert await fetcher.fetch(f"{site.url}/a b?x=1#fragment", "image") == BODY
        head = site.requests[0]
        assert head.startswith("GET /a%20b?x=1 HTTP/1.1\r\n")
        assert f"\r\nHost: 127.0.0.1:{site.port}\r\n" in head
        assert "cookie" not in head.lower()


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "LOCALHOST", "localhost.", "127.1", "2130706433", "0x7f000001", "0x7f.0.0.1"),
        *("0177.0.0.1", "017700000001", "127.0.0.1.", "0", "0.0.0.0", "127.000.000.001", "①②⑦.⓪.⓪.①"),
        *("[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]", "[0:0:0:0:0:0:0:1]", "[64:ff9b::127.0.0.1]"),
        *("169.254.169.254", "[fd00:ec2::254]", "10.0.0.1", "[fe80::1]", "224.0.0.1", "255.255.255.255"),
    ],
)
async def test_this_machine_and_other_private_places_are_refused_by_default(host: str) -> None:
    async with Site({"/": answer(BODY)}) as site, fetching() as fetcher:
        reason = await refused(fetcher, f"http://{host}:{site.port}/")
        # Some systems do not know the odd spellings at all.
        assert reason in (NOT_FROM_THERE, "its host is unknown", "the URL is not valid")
        assert site.connections == 0
    if host in ("127.0.0.1", "localhost", "2130706433", "0x7f.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254"):
        assert reason == NOT_FROM_THERE


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://127.0.0.1/a", "only http and https URLs are fetched"),
        ("file:///etc/passwd", "only http and https URLs are fetched"),
        ("http://user:secret@127.0.0.1/", "a URL with user or password is not fetched"),
        ("http://cats.test@127.0.0.1/", "a URL with user or password is not fetched"),
        ("http://cats.test\\@127.0.0.1/", "a URL with user or password is not fetched"),
        ("http:///a", "the URL has no host"),
        ("http:a", "the URL has no host"),
        ("http://[::1/", "the URL is not valid"),
        ("http://127.0.0.1:99999/", "the URL is not valid"),
        ("http://127.0.0.1/a\r\nHost: evil", "the URL is not valid"),
        ("http://" + "a" * 70 + ".test/", "its host is unknown"),
        ("http://a..b/", "its host is unknown"),
    ],
)
async def test_urls_that_are_not_asked_for(url: str, reason: str) -> None:
    async with local() as fetcher:
        assert await refused(fetcher, url) in (reason, "the URL is not valid")


async def test_a_long_url_is_neither_asked_for_nor_echoed() -> None:
    async with local() as fetcher:
        with pytest.raises(InvalidRequest, match="the URL has 9017 characters, the limit is 8192") as caught:
            await fetcher.fetch("http://127.0.0.1/" + "a" * 9000, "image")
        assert len(caught.value.message) < 300


async def test_no_urls_at_all() -> None:
    async with Site({"/": answer(BODY)}) as site, local(media_urls="none") as fetcher:
        assert await refused(fetcher, site.url) == "this server fetches no URLs; send the file itself, as base64"
        assert site.connections == 0


async def test_redirects_are_followed_and_bounded() -> None:
    answers = {f"/{i}": redirect(f"/{i + 1}") for i in range(9)}
    async with Site(answers) as site, local() as fetcher:
        site.answers[f"/{MAX_REDIRECTS}"] = answer(BODY)
        assert await fetcher.fetch(f"{site.url}/0", "image") == BODY
        site.answers["/x"] = redirect("/0")
        assert await refused(fetcher, f"{site.url}/x") == "more than 5 redirects"
        site.answers["/loop"] = redirect("/loop", "308 Permanent Redirect")
        site.requests.clear()
        assert await refused(fetcher, f"{site.url}/loop") == "more than 5 redirects"
        assert len(site.requests) == MAX_REDIRECTS + 1
        site.answers["/nowhere"] = answer(b"", status="302 Found")
        assert await refused(fetcher, f"{site.url}/nowhere") == "the server redirects to nowhere"


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("http://127.0.0.2:{port}/secret", NOT_FROM_THERE),
        ("//127.0.0.2:{port}/secret", NOT_FROM_THERE),
        ("http://169.254.169.254/latest/meta-data/", NOT_FROM_THERE),
        ("http://[::1]:{port}/secret", NOT_FROM_THERE),
        ("http://user:pass@127.0.0.1/", "the server redirects, but a URL with user or password is not fetched"),
        ("file:///etc/passwd", "the server redirects, but only http and https URLs are fetched"),
        ("gopher://127.0.0.1/x", "the server redirects, but only http and https URLs are fetched"),
        ("http://127.0.0.1:0/", "the URL is not valid"),
    ],
)
async def test_a_redirect_is_checked_like_a_url(to: str, reason: str) -> None:
    async with Site({"/secret": answer(b"secret")}, host="127.0.0.2") as inside, Site({}) as site, local() as fetcher:
        site.answers["/"] = redirect(to.format(port=inside.port))
        assert await refused(fetcher, f"{site.url}/") == reason
        assert inside.connections == 0


async def test_a_name_that_changes_its_address_after_the_check_gains_nothing() -> None:
    answers = [["127.0.0.2"], ["127.0.0.1"]]
    asked = []

    async def rebinding(host: str, port: int) -> list[Address]:
        asked.append(host)
        return [ip_address(text) for text in answers[min(len(asked), 2) - 1]]

    settings = {"media_allow_hosts": "127.0.0.2"}
    async with Site({"/": answer(b"good")}, host="127.0.0.2") as outside, fetching(rebinding, **settings) as fetcher:
        url = f"http://cats.test:{outside.port}/"
        assert await fetcher.fetch(url, "image") == b"good"
        assert asked == ["cats.test"]
        assert f"\r\nHost: cats.test:{outside.port}\r\n" in outside.requests[0]
        # The next fetch looks the name up again, and is refused.
        assert await refused(fetcher, url) == NOT_FROM_THERE
        assert outside.connections == 1


async def test_of_several_addresses_only_the_allowed_ones_are_tried_in_turn() -> None:
    async def resolve(host: str, port: int) -> list[Address]:
        return [ip_address(text) for text in ("10.0.0.1", "127.0.0.3", "127.0.0.2")]

    settings = {"media_allow_hosts": "127.0.0.0/8"}
    async with Site({"/": answer(BODY)}, host="127.0.0.2") as site, fetching(resolve, **settings) as fetcher:
        # Nobody listens on 127.0.0.3.
        assert await fetcher.fetch(f"http://cats.test:{site.port}/", "image") == BODY


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Site({}) as proxy, Site({"/": answer(BODY)}) as site, local() as fetcher:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert await fetcher.fetch(f"{site.url}/", "image") == BODY
        assert proxy.connections == 0


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_the_size_limit_holds_with_and_without_a_length() -> None:
    part = b"x" * 65536
    answers = {
        "/exact": answer(bytes(2**20)),
        "/over": answer(bytes(2**20 + 1)),
        "/liar": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nabc"),
        "/endless": drip(part, 0),
        "/chunks": drip(b"10000\r\n" + part + b"\r\n", 0, head=CHUNKED),
    }
    async with Site(answers) as site, local(max_media_mib=1) as fetcher:
        assert await fetcher.fetch(f"{site.url}/exact", "image") == bytes(2**20)
        for path in ("over", "liar", "endless", "chunks"):
            assert await refused(fetcher, f"{site.url}/{path}") == "it is larger than 1 MiB"
        await site.until_idle()


async def test_compressed_answers_are_refused_before_they_unfold() -> None:
    bomb = gzip.compress(bytes(10**8))
    answers = {f"/{name}": answer(bomb, headers=f"Content-Encoding: {name}\r\n") for name in ("gzip", "br", "x-gzip")}
    async with Site(answers) as site, local() as fetcher:
        for name in ("gzip", "br", "x-gzip"):
            reason = await refused(fetcher, f"{site.url}/{name}")
            assert reason == "the server sent it compressed (Content-Encoding), which is not accepted"
        assert "\r\nAccept-Encoding: identity\r\n" in site.requests[0]
        site.answers["/plain"] = answer(BODY, headers="Content-Encoding: identity\r\n")
        assert await fetcher.fetch(f"{site.url}/plain", "image") == BODY


async def test_the_time_limit_is_for_the_whole_fetch() -> None:
    answers = {
        "/silent": answer(BODY, delay_s=60),
        "/drip": drip(b"x", 0.05),
        "/head": drip(b"X-Header: 1\r\n", 0.05, head=b"HTTP/1.1 200 OK\r\n"),
    }
    answers["/chain"] = redirect("/drip")
    async with Site(answers) as site, local(media_timeout_s=0.4, max_media_downloads=4) as fetcher:
        start = time.monotonic()
        urls = [f"{site.url}/{path}" for path in ("silent", "drip", "head", "chain")]
        reasons = await asyncio.gather(*(refused(fetcher, url) for url in urls))
        assert reasons == ["it did not arrive within 0.4 s"] * 4
        assert time.monotonic() - start < 5
        await site.until_idle()
        # Nothing is used up by what failed.
        site.answers["/"] = answer(BODY)
        assert await asyncio.gather(*(fetcher.fetch(f"{site.url}/", "image") for _ in range(8))) == [BODY] * 8


async def test_a_slow_name_lookup_counts() -> None:
    async def stuck(host: str, port: int) -> list[Address]:
        await asyncio.sleep(60)
        raise AssertionError

    async with fetching(stuck, media_timeout_s=0.2) as fetcher:
        assert await refused(fetcher, "http://cats.test/") == "it did not arrive within 0.2 s"


async def test_only_so_many_at_a_time() -> None:
    async with Site({"/": answer(BODY, delay_s=0.02)}) as site, local(max_media_downloads=3) as fetcher:
        found = await asyncio.gather(*(fetcher.fetch(f"{site.url}/", "image") for _ in range(20)))
        assert found == [BODY] * 20
        assert site.most_at_once == 3


async def test_a_caller_who_goes_away_frees_its_place() -> None:
    async with Site({"/slow": drip(b"x", 0.05), "/": answer(BODY)}) as site, local(max_media_downloads=1) as fetcher:
        task = asyncio.create_task(fetcher.fetch(f"{site.url}/slow", "image"))
        await site.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await fetcher.fetch(f"{site.url}/", "image") == BODY
        await site.until_idle()


async def test_answers_that_are_no_file() -> None:
    answers = {
        "/404": answer(b"gone", status="404 Not Found"),
        "/500": answer(b"oops", status="500 Internal Server Error"),
        "/206": answer(b"part", status="206 Partial Content"),
        "/304": answer(b"", status="304 Not Modified"),
        "/ssh": raw(b"SSH-2.0-secret\r\n"),
        "/cut": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"),
        "/cut-chunks": raw(CHUNKED + b"10\r\nabc"),
        "/nothing": raw(b""),
    }
    async with Site(answers) as site, local() as fetcher:
        for status in ("404", "500", "206", "304"):
            assert await refused(fetcher, f"{site.url}/{status}") == f"the server answered with status {status}"
        for path in ("ssh", "cut", "cut-chunks", "nothing"):
            reason = await refused(fetcher, f"{site.url}/{path}")
            assert reason == "the answer is not valid HTTP, or ended too early"
        port = site.port
    async with local() as fetcher:
        assert await refused(fetcher, f"http://127.0.0.1:{port}/") == "the connection failed"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of cats.test, with its key in the same file."""
    folder = tmp_path_factory.mktemp("tls")
    file = folder / "cats.pem"
    subject = ["-subj", "/CN=cats.test", "-addext", "subjectAltName=DNS:cats.test"]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    subprocess.run(
        [*command, *subject, "-keyout", str(folder / "key.pem"), "-out", str(file)], check=True, capture_output=True
    )
    file.write_text(file.read_text() + (folder / "key.pem").read_text())
    return file


async def test_tls_sees_the_name_not_the_address(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(host: str, port: int) -> list[Address]:
        return [ip_address("127.0.0.1")]

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    asked: list[str | None] = []
    context.sni_callback = lambda _, name, __: asked.append(name)
    async with Site({"/": answer(BODY)}, tls=context) as site:
        cats, dogs = f"https://cats.test:{site.port}/", f"https://dogs.test:{site.port}/"
        settings = {"media_allow_hosts": "127.0.0.1"}
        async with fetching(resolve, **settings) as fetcher:
            assert "self-signed certificate" in (await refused(fetcher, cats)).replace("self signed", "self-signed")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with fetching(resolve, **settings) as fetcher:
            assert await fetcher.fetch(cats, "image") == BODY
            assert "Hostname mismatch" in await refused(fetcher, dogs)
            assert await fetcher.fetch(cats, "image") == BODY
            assert "the certificate is wrong: IP address mismatch" in await refused(fetcher, site.url)
        assert asked == ["cats.test", "cats.test", "dogs.test", "cats.test", None]
        assert f"\r\nHost: cats.test:{site.port}\r\n" in site.requests[0]


def test_it_is_imported_only_by_whoever_fetches() -> None:
    code = "import sys, lemni.media.sources, lemni.media.images, lemni.media.audio; print('httpcore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
