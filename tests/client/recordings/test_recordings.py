"""The recordings say what they should, and the server that replays them is no more generous than the genuine one."""

from __future__ import annotations

import base64
import io
from typing import Any

import httpx
import numpy as np
import pytest

from tests.client.recordings import MISMATCH, NAMES, recorded, replaying


def test_each_recording_is_found_again() -> None:
    with replaying() as replay, httpx.Client(base_url=replay.url) as http:
        for name in NAMES:
            recording = recorded(name)
            reply = http.request(recording.method, recording.path, json=recording.body)
            assert (reply.status_code, reply.json()) == (recording.status, recording.reply)
            assert recording.headers.items() <= dict(reply.headers).items()
        assert replay.answered == NAMES


@pytest.mark.parametrize("kind", ["colbert", "clip-text", "clip-image"])
def test_base64_equals_floats_to_the_bit(kind: str) -> None:
    width = 8
    encoded, floats = (recorded(f"{kind}-{form}").vectors(width) for form in ("base64", "float"))
    assert len(encoded) == len(floats) == 2
    for ours, theirs in zip(encoded, floats, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_multi_vectors_are_flat_in_base64_and_cut_by_tokens() -> None:
    assert [vector.ndim for vector in recorded("colbert-base64").vectors()] == [1, 1]
    assert [vector.shape for vector in recorded("colbert-float").vectors()] == [(4, 8), (7, 8)]
    assert [vector.shape for vector in recorded("colbert-dimensions").vectors()] == [(2, 8), (2, 8)]
    assert recorded("colqwen2-one-token-float").vectors()[0].shape == (1, 128)


def test_a_shorter_text_beside_a_longer_one_begins_with_rows_of_zeros() -> None:
    short, long = recorded("colqwen2-uneven-base64").vectors(128)
    assert short.shape == long.shape == (17, 128)
    assert (~short.any(axis=1)).tolist() == [True] * 4 + [False] * 13
    assert long.any(axis=1).all()


def _ask(name: str, body: dict[str, Any]) -> httpx.Response:
    with replaying(name) as replay:
        return httpx.post(f"{replay.url}/embeddings", json=body)


def test_fields_that_infinity_ignores_do_not_matter_and_others_do() -> None:
    name = "dense-one-base64"
    body: dict[str, Any] = dict(recorded(name).body or {})
    body |= {"input": "Hello, world!", "encoding": "base64", "input_type": "query", "dimensions": 0}
    assert _ask(name, body).status_code == 200
    with pytest.raises(AssertionError, match=rf'(?s)nearest is \'{name}\'.*- "encoding_format": "base64"'):
        _ask(name, {**body, "encoding_format": "float"})


def test_a_request_that_is_not_recorded_fails_even_if_the_client_hides_it() -> None:
    with pytest.raises(AssertionError, match="nothing is recorded for GET /models"):
        _unrecorded()


def _unrecorded() -> None:
    with replaying("health") as replay:
        assert httpx.get(f"{replay.url}/models").status_code == MISMATCH


def test_a_picture_may_be_written_anew_but_must_be_the_same() -> None:
    from PIL import Image

    recording = recorded("colqwen2-two-images-base64")
    uris = []
    for content in recording.pictures:
        out = io.BytesIO()
        with Image.open(io.BytesIO(content)) as image:
            image.save(out, "JPEG", quality=80)
        uris.append("data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode())
    body = recording.body or {}
    assert uris != body["input"]
    assert _ask(recording.name, {**body, "input": uris}).status_code == 200
    for wrong in (uris[::-1], uris[:1], [uri.partition(",")[2] for uri in uris]):
        with pytest.raises(AssertionError, match="no recording"):
            _ask(recording.name, {**body, "input": wrong})
