"""Taking the port: what is bound, and the one line for a port that cannot be had."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from lemni.cli.listen import listen
from lemni.errors import ConfigError

from .command import error_line, lemni


def close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def test_port_0_picks_a_free_one_for_all_addresses() -> None:
    sockets = listen("localhost", 0)
    try:
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
        assert sockets[0].getsockname()[1] > 0
        assert "127.0.0.1" in [sock.getsockname()[0] for sock in sockets]
        for sock in sockets:
            sock.listen()
            with socket.create_connection(sock.getsockname()[:2], timeout=10):
                pass
    finally:
        close(sockets)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_all_interfaces_of_both_kinds() -> None:
    sockets = listen("::", 0)
    try:
        (sock,) = sockets
        sock.listen()
        with socket.create_connection(("127.0.0.1", sock.getsockname()[1]), timeout=10):
            pass
    finally:
        close(sockets)


def test_a_port_can_be_taken_again_at_once() -> None:
    (first,) = listen("127.0.0.1", 0)
    port = first.getsockname()[1]
    first.listen()
    with socket.create_connection(("127.0.0.1", port), timeout=10), first:
        accepted, _ = first.accept()
        accepted.close()  # this end waits in TIME_WAIT
    close(listen("127.0.0.1", port))


def test_a_busy_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        line = error_line(lemni("serve", "--port", str(port), cwd=tmp_path))
        assert line == f"port {port} on 127.0.0.1 is in use; choose another with --port (0 picks a free one)"


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("203.0.113.7", "203.0.113.7 is no address of this machine"),
        ("no.such.host.invalid", "host 'no.such.host.invalid' is unknown: "),
        ("a" * 70, f"host '{'a' * 70}' is unknown: "),
    ],
)
def test_hosts_that_cannot_be_listened_on(host: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        listen(host, 0)
    assert caught.value.message.startswith(message)
