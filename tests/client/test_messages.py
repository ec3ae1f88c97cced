"""What errors tell the user to do."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

import lemni
from lemni.client import BadAnswer, ConnectionFailed, StatusError
from lemni.errors import InvalidRequest
from tests.client import misbehaving as bad
from tests.client.asking import Asking
from tests.client.misbehaving import misbehaving


@pytest.fixture
def nobody() -> Iterator[str]:
    """URL of a port where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_no_server(ask: Callable[..., Asking], nobody: str) -> None:
    with pytest.raises(ConnectionFailed) as raised:
        ask(type("Nobody", (), {"url": nobody})(), retries=lemni.client.Retries(times=2, first_s=0.01)).embed(["a"])
    assert raised.value.refused
    assert str(raised.value).startswith(f"cannot connect to {nobody}/embeddings: [Errno 111] ")
    assert str(raised.value).endswith(". Is a server running there? (tried 3 times)")


def test_no_server_of_two(nobody: str) -> None:
    with lemni.Client([nobody, f"{nobody}/other"], retries=0) as client, pytest.raises(ConnectionFailed) as raised:
        client.embed("a")
    assert str(raised.value).endswith(f"(tried once, each of {nobody}, {nobody}/other)")


def test_a_wrong_key(ask: Callable[..., Asking]) -> None:
    with misbehaving(otherwise=lambda turn: turn.send(bad.reply(b'{"detail": "Unauthorized"}', 401))) as server:
        with pytest.raises(StatusError, match=r"Unauthorized; the client's argument for it is api_key$"):
            ask(server).embed(["a"])
        with pytest.raises(StatusError):
            ask(server, api_key="Bearer secret").embed(["a"])
    assert server.seen[-1].headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize("settings", [{"cache": True}, {"headers": "x"}, {"base_url": 5}, {"timeout_s": "1"}])
def test_settings_of_a_wrong_type(settings: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match=f"^{next(iter(settings))} is "):
        lemni.Client(**settings)  # type: ignore[arg-type]


def test_unknown_settings_are_told_the_known_ones() -> None:
    with pytest.raises(TypeError, match=r"'timeout'; known: base_url, model, api_key, encoding, timeout_s, "):
        lemni.Client(timeout=3)  # type: ignore[call-arg]


def test_dense_vectors_of_a_late_interaction_model(ask_zoo: Callable[..., Asking]) -> None:
    with pytest.raises(BadAnswer, match=r"ask for them with multi_vector\(\)"):
        ask_zoo().embed(["a"], model="colbert")
