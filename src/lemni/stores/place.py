"""Where a collection is, as one address: `SCHEME://[USER[:PASSWORD]@]HOST[:PORT][/PATH]?collection=NAME&OPTION=VALUE`,
or `SCHEME:PATH?collection=NAME` for a file or a folder of this machine.

A password may stand in the address, but better in the store's own environment variable; it never comes back out of here
in a message or a manifest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from lemni.errors import StoreError

_SECRET = re.compile(
    r"pass|pwd|secret|token|key", re.IGNORECASE
)  # in the name of an option: no store knows one, people try


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
        """Without the password; for people, and an address again that `parse` takes."""
        user = f"{quote(self.user, safe='')}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        where = f"//{user}{host}{'' if self.port is None else f':{self.port}'}" if self.host else ""
        path = self.path.replace("%", "%25").replace("?", "%3F")
        query = {**({"collection": self.collection} if self.collection else {}), **self.options}
        shown = "&".join(
            f"{quote(name)}={'…' if _SECRET.search(name) else quote(value, safe='/:,')}"
            for name, value in query.items()
        )
        scheme = f"{self.scheme}:" if self.scheme else ""
        return f"{scheme}{where}{'/' if self.host and path else ''}{path}{'?' if shown else ''}{shown}"

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
    scheme = address.partition(":")[0][:20]
    try:
        parts = urlsplit(address, allow_fragments=False)
    except ValueError:  # its text has what stands before the host
        raise StoreError(
            f"{scheme}://…: is no address. In a user or a password write [ as %5B, ] as %5D, and whatever is not ASCII "
            "as percent and two digits, too"
        ) from None
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    options = dict(pairs)
    # What follows / ? or # is no part of a password any more, and would be shown as a path or an option.
    if parts.netloc and "@" not in parts.netloc and any("@" in one for one in (parts.path, *options)):
        raise StoreError(
            f"{scheme}://…: has an @ behind its host. In a user or a password write / as %2F, ? as %3F, # as %23"
        )
    try:
        port = parts.port
    except ValueError:  # its text has what was taken for the port
        raise StoreError(
            f"{scheme}://{parts.hostname or ''}:…: is no address: the port is no number up to 65535"
        ) from None
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise StoreError(f"{scheme}://…: the option {twice[0]!r} stands there twice")
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
