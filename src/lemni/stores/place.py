"""Where a collection is, as one address: `SCHEME://[USER[:PASSWORD]@]HOST[:PORT][/PATH]?collection=NAME&OPTION=VALUE`,
or `SCHEME:PATH?collection=NAME` for a file or a folder of this machine.

A password may stand in the address, but better in the store's own environment variable; it never comes back out of here
in a message or a manifest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from lemni.errors import StoreError


@dataclass(frozen=True, slots=True)
class Place:
    """An address in its parts.

    Attributes:
        scheme: chooses the store.
        host: empty for a file or a folder.
        path: as written, decoded: relative for `chroma:folder`, absolute for `chroma:///folder`; of a host, without its
            first slash.
        collection: of the query.
        options: the rest of the query.
    """

    scheme: str
    host: str = ""
    port: int | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    path: str = ""
    collection: str = ""
    options: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Without the password."""
        where = f"//{f'{self.user}@' if self.user else ''}{self.host}{f':{self.port}' if self.port else ''}"
        path = f"/{self.path}" if self.host and self.path else self.path
        query = {**({"collection": self.collection} if self.collection else {}), **self.options}
        shown = "&".join(f"{name}={quote(value, safe='/:,')}" for name, value in query.items())
        return f"{self.scheme}:{where if self.host else ''}{path}{'?' if shown else ''}{shown}"

    def option(self, name: str, default: str = "") -> str:
        return self.options.get(name, default)

    def check_options(self, *known: str) -> None:
        """Raises StoreError for an option that the store does not know."""
        if unknown := sorted(set(self.options) - set(known)):
            raise StoreError(
                f"{self}: unknown option {unknown[0]!r}; {self.scheme} knows {', '.join(('collection', *known))}"
            )


def parse(address: str) -> Place:
    """Raises StoreError where it is no address."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise StoreError(f"{address.split('@')[-1]}: is no address: {error}") from None
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) < len(pairs):
        raise StoreError(f"{parts.scheme}://…?{parts.query}: an option stands there twice")
    path = unquote(parts.path)
    return Place(
        parts.scheme,
        parts.hostname or "",
        port,
        unquote(parts.username) if parts.username else None,
        unquote(parts.password) if parts.password else None,
        path.removeprefix("/") if parts.hostname else path,
        options.pop("collection", ""),
        options,
    )
