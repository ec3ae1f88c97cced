"""What a package index offers for one package: the Simple API as JSON (PEP 691) or HTML (PEP 503), and plain folders.

Turns pages into `Link`s and picks the wheel. Fetches nothing; `index` does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from packaging.utils import BuildTag, InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from lemni.errors import ModelNotFound

ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


@dataclass(frozen=True)
class Link:
    """A wheel that an index offers."""

    url: str
    package: str
    version: Version
    build: BuildTag
    pure: bool
    sha256: str | None = None
    size: int | None = None
    yanked: bool = False

    @property
    def filename(self) -> str:
        return unquote(urlsplit(self.url).path.rpartition("/")[2])


def from_json(page: dict[str, Any], url: str) -> list[Link]:
    """Wheels on a JSON page that was read from `url`."""
    links = []
    for file in page.get("files") or ():
        link = make_link(
            urljoin(url, str(file["url"])),
            sha256=(file.get("hashes") or {}).get("sha256"),
            size=file.get("size"),
            # A reason, even an empty one, means yanked; so does true.
            yanked=file.get("yanked", False) is not False,
        )
        if link:
            links.append(link)
    return links


def from_html(text: str, url: str) -> list[Link]:
    """Wheels on an HTML page that was read from `url`."""
    parser = _Anchors()
    parser.feed(text)
    base = urljoin(url, parser.base) if parser.base else url
    return [link for href, yanked in parser.anchors if (link := make_link(urljoin(base, href), yanked=yanked))]


def make_link(url: str, sha256: str | None = None, size: int | None = None, yanked: bool = False) -> Link | None:
    """A link to a wheel, or None if the URL is of another kind of file. A hash may stand in the fragment."""
    url, fragment = urldefrag(url)
    try:
        package, version, build, tags = parse_wheel_filename(unquote(urlsplit(url).path.rpartition("/")[2]))
    except (InvalidWheelFilename, InvalidVersion):
        return None
    if sha256 is None and fragment.startswith("sha256="):
        sha256 = fragment.partition("=")[2].partition("&")[0]
    # Any platform will do, since only data files are taken; the pure wheel is the plainest.
    pure = any(tag.platform == "any" for tag in tags)
    return Link(url, package, version, build, pure, sha256.lower() if sha256 else None, size, yanked)


def choose(links: Iterable[Link], package: str, version: str | None) -> Link | None:
    """The wheel to take: of the pinned version, else of the newest that is neither yanked nor a pre-release."""
    links = [link for link in links if link.package == canonicalize_name(package)]
    if version is not None:
        try:
            wanted = Version(version)
        except InvalidVersion:
            raise ModelNotFound(f"{version!r} is not a version") from None
        links = [link for link in links if link.version == wanted]
    else:
        links = [link for link in links if not link.yanked]
        links = [link for link in links if not link.version.is_prerelease] or links
    return max(links, key=lambda link: (link.version, not link.yanked, link.pure, link.build), default=None)


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.base: str | None = None
        self.anchors: list[tuple[str, bool]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "base" and self.base is None:
            self.base = values.get("href")
        if tag == "a" and values.get("href"):
            self.anchors.append((str(values["href"]), "data-yanked" in values))
