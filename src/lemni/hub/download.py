"""Downloads one file: resumed where it stopped, retried, checked by hash, with a progress bar.

Knows no index and no model; `index` calls it. The bytes wait in a `.part` file, so that neither a broken connection
nor Ctrl-C costs what has arrived.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from lemni.errors import ModelLoadError

if TYPE_CHECKING:
    import httpx
    from tqdm import tqdm

CHUNK_BYTES = 1 << 20
ATTEMPTS = 5
_RETRY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


class DownloadError(ModelLoadError):
    """The file could not be had, or is not the one that was promised."""


class _Interrupted(Exception):
    """Worth another attempt."""


def fetch(
    client: httpx.Client,
    url: str,
    target: Path,
    *,
    sha256: str | None,
    size: int | None = None,
    progress: bool | None = None,
) -> None:
    """Put the file at `url` into `target`, or leave a `.part` file to go on from.

    Args:
        sha256: hash that it must have, lower-case hex; None checks nothing.
        size: bytes, for the progress bar.
        progress: show a bar on stderr; None does so on a terminal.

    Raises:
        DownloadError: no connection after several attempts, a refusal of the server, or the wrong hash.
    """
    part = target.with_name(target.name + ".part")
    show = sys.stderr.isatty() if progress is None else progress
    if sha256 is None:
        part.unlink(missing_ok=True)  # nothing would tell a wrong continuation
    elif part.exists() and size in (None, part.stat().st_size) and file_sha256(part) == sha256:
        part.replace(target)  # all had come, and only this step was missing
        return
    resumed = part.exists() and part.stat().st_size > 0
    _receive(client, url, part, target.name, size, show)
    if sha256 is not None and (found := file_sha256(part)) != sha256:
        part.unlink()
        if resumed:
            # What lay there may have been of another file: once more from the start.
            fetch(client, url, target, sha256=sha256, size=size, progress=progress)
            return
        raise DownloadError(f"{redact(url)}: has the sha256 {found}, expected {sha256}; nothing was kept")
    part.replace(target)


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def redact(url: str) -> str:
    """The URL without user name and password, for messages."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _receive(
    client: httpx.Client,
    url: str,
    part: Path,
    name: str,
    size: int | None,
    show: bool,
) -> None:
    from tqdm import tqdm as progress_bar

    failures, before = 0, -1
    bar: tqdm[Any]
    with progress_bar(total=size, desc=name, unit="B", unit_scale=True, disable=not show, file=sys.stderr) as bar:
        while True:
            have = part.stat().st_size if part.exists() else 0
            # Only attempts that bring nothing count: a flaky line still gets there.
            failures = failures + 1 if have <= before else 0
            before = max(have, before)
            try:
                _stream(client, url, part, have, bar)
                return
            except _Interrupted as error:
                if failures + 1 >= ATTEMPTS:
                    raise DownloadError(f"{redact(url)}: gave up after {ATTEMPTS} attempts: {error}") from error
                sleep(0.5 * 2**failures)


def _stream(client: httpx.Client, url: str, part: Path, have: int, bar: tqdm[Any]) -> None:
    import httpx

    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with client.stream("GET", url, headers=headers) as response:
            status = response.status_code
            if status == 416 and have:
                part.unlink()
                raise _Interrupted("the server has fewer bytes than were already here")
            if status in _RETRY_STATUSES:
                raise _Interrupted(f"the server answered {status}")
            if status >= 400:
                raise DownloadError(f"{redact(url)}: the server answered {status} {response.reason_phrase}")
            goes_on = status == 206 and response.headers.get("content-range", "").startswith(f"bytes {have}-")
            if have and not goes_on and status == 206:
                part.unlink()
                raise _Interrupted("the server sent another range than was asked for")
            if bar.total is None and "content-length" in response.headers:
                bar.total = int(response.headers["content-length"]) + (have if goes_on else 0)
            with part.open("ab" if goes_on else "wb") as file:
                bar.update((have if goes_on else 0) - bar.n)
                for chunk in response.iter_bytes():  # as they come; gathered chunks would be lost with the line
                    file.write(chunk)
                    bar.update(len(chunk))
    except httpx.TransportError as error:
        raise _Interrupted(str(error) or type(error).__name__) from error
    except (httpx.RequestError, httpx.InvalidURL) as error:
        raise DownloadError(f"{redact(url)}: {error or type(error).__name__}") from error
