"""Takes the port before anything else is done, so that a busy one is said at once and not after loading models."""

from __future__ import annotations

import errno
import os
import socket

from lemni.errors import ConfigError


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets bound to every address of `host` (localhost may have two), not listening yet.

    Port 0 picks a free one, the same for all addresses.

    Raises:
        ConfigError: the port is busy or not allowed, the host is unknown or not of this machine.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise ConfigError(f"host {host!r} is unknown: {getattr(error, 'strerror', None) or error}") from error
    bound: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                bound.append(_bind(family, kind, protocol, (address[0], port, *address[2:])))
            except OSError as error:
                # localhost has an IPv6 address in /etc/hosts even where IPv6 is switched off.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                missing = error
            else:
                port = bound[-1].getsockname()[1]
        if not bound and missing is not None:
            raise missing
    except OSError as error:
        for sock in bound:
            sock.close()
        raise ConfigError(_reason(host, port, error)) from error
    return bound


def _bind(family: int, kind: int, protocol: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            # Lets a restarted server have the port again at once.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # An own socket for IPv4, if wanted, is in the list as well; `::` alone stays open to both.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _reason(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; choose another with --port (0 picks a free one)"
    if error.errno == errno.EACCES:
        return f"port {port} on {host} is not allowed for this user; choose one of 1024 or more with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine; choose another with --host (0.0.0.0: every interface)"
    return f"port {port} on {host} cannot be had: {error.strerror}"
