"""Several dialects on one path, told apart by the body; bodies as forms; errors in the words of the dialect spoken."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest
from fastapi.responses import Response

from lemni.engine import Engine
from lemni.errors import InvalidRequest, LemniError
from lemni.server import app as application
from lemni.server.app import create_app
from lemni.server.call import Call, json_response
from lemni.server.dialect import Dialect, Operation, has
from tests.engine.toy import ToyModel, expected
from tests.server.conftest import client_of
from tests.server.live import loaded, server_settings

Claims = Callable[[Mapping[str, Any]], bool] | None


def speaking(name: str, claims: Claims, paths: tuple[str, ...] = ("/same",), **options: Any) -> Dialect:
    """A dialect that says who answered, and what it was sent."""

    async def handler(call: Call) -> Response:
        if "fail" in call.body:
            raise InvalidRequest("as you wish")
        sent = {key: [type(value).__name__, repr(value)] for key, value in call.body.items()}
        return json_response({"by": name, "sent": sent, "item": call.http.path_params.get("item")})

    def error_body(error: LemniError) -> bytes:
        return json.dumps({name: error.message}).encode()

    method = options.pop("method", "POST")
    example = {"one": {"value": {name: 1}}} if method == "POST" else {}
    operation = Operation(paths, handler, f"Ask {name}", method, claims, examples=example)
    return Dialect(name, (operation,), error_body, **options)


@pytest.fixture
def serving(toy_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def client(*dialects: Dialect, **settings: Any) -> Any:
        monkeypatch.setattr(application, "load_dialects", lambda: list(dialects))
        return client_of(create_app(loaded(toy_engine), server_settings(**settings)))

    return client


async def by(client: httpx.AsyncClient, body: dict[str, Any], path: str = "/same") -> str:
    answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    name: str = answer.json()["by"]
    return name


async def test_the_first_claim_wins_and_the_rest_goes_to_who_claims_nothing(serving: Callable[..., Any]) -> None:
    dialects = [speaking("first", None), speaking("texts", has("texts", "text")), speaking("last", has("inputs"))]
    async with serving(*dialects) as client:
        for body, name in (
            ({}, "first"),
            ({"other": 1}, "first"),
            ({"text": None}, "texts"),
            ({"texts": [], "other": 1}, "texts"),
            ({"inputs": "a"}, "last"),
            ({"inputs": "a", "texts": []}, "texts"),
        ):
            assert await by(client, body) == name
    async with serving(dialects[2], dialects[1]) as client:
        assert await by(client, {"inputs": "a", "texts": []}) == "last"
        assert await by(client, {"nobodys": 1}) == "last"  # nobody takes the rest, so the first does
    async with serving(dialects[1], dialects[0], speaking("late", None)) as client:
        assert await by(client, {"nobodys": 1}) == "first"


async def test_one_path_by_method_and_whole_paths_before_those_with_parameters(serving: Callable[..., Any]) -> None:
    dialects = [
        speaking("any", None, ("/things/{item:path}",)),
        speaking("one", None, ("/things/one", "/alias")),
        speaking("got", None, ("/things/one",), method="GET"),
    ]
    async with serving(*dialects) as client:
        assert await by(client, {}, "/things/one") == await by(client, {}, "/alias") == "one"
        assert (await client.get("/things/one")).json()["by"] == "got"
        other = await client.post("/things/a/b", json={})
        assert (other.json()["by"], other.json()["item"]) == ("any", "a/b")
        wrong = await client.get("/things/two")
        assert wrong.status_code == 405


async def test_errors_are_written_by_the_dialect_that_was_spoken(serving: Callable[..., Any]) -> None:
    def status(error: LemniError) -> int:
        return 422 if error.status == 400 else error.status

    own = speaking("own", has("texts"), ("/same", "/own"), status=status)
    async with serving(speaking("first", None), own, max_body_mib=0.01) as client:
        for path, body, code, name in (
            ("/same", {"fail": 1}, 400, "first"),
            ("/same", {"fail": 1, "texts": 1}, 422, "own"),
            ("/own", {"fail": 1}, 422, "own"),
        ):
            answer = await client.post(path, json=body)
            assert (answer.status_code, answer.json()) == (code, {name: "as you wish"})
            assert answer.headers["x-request-id"]
        # Before there is a body it is the dialect of the path.
        for path, code, name in (("/same", 400, "first"), ("/own", 422, "own"), ("/nothing", 404, "first")):
            answer = await client.post(path, content=b"{")
            assert (answer.status_code, list(answer.json())) == (code, [name])
        large = await client.post("/own", json={"texts": "x" * 20_000})
        assert (large.status_code, list(large.json())) == (413, ["own"])


async def test_documentation_of_a_shared_path_holds_all_dialects(serving: Callable[..., Any]) -> None:
    async with serving(speaking("first", None), speaking("second", has("x"))) as client:
        shown = (await client.get("/openapi.json")).json()["paths"]["/same"]["post"]
    assert shown["tags"] == ["first", "second"]
    assert set(shown["requestBody"]["content"]["application/json"]["examples"]) == {"first: one", "second: one"}
    assert "**first**: Ask first" in shown["description"]
    assert "**second**: Ask second" in shown["description"]
    assert {"200", "400", "401", "404", "413", "415", "429", "503", "504"} <= shown["responses"].keys()


async def test_forms(serving: Callable[..., Any]) -> None:
    async with serving(speaking("first", None), speaking("files", has("file"))) as client:
        answer = await client.post(
            "/same",
            data={"model": "m", "text": ["one", "zwei ✓"]},
            files={"file": ("a.bin", b"\x00\xff\r\n--", "image/png")},
        )
        assert answer.json()["by"] == "files"
        assert answer.json()["sent"] == {
            "model": ["str", "'m'"],
            "text": ["list", "['one', 'zwei ✓']"],
            "file": ["bytes", repr(b"\x00\xff\r\n--")],
        }
        two = await client.post("/same", files=[("file", ("a", b"1")), ("file", ("b", b"2"))])
        assert two.json()["sent"] == {"file": ["list", "[b'1', b'2']"]}
        large = b"x" * 3_000_000  # larger than what the parser keeps in memory for a text field
        sent = (await client.post("/same", files={"file": ("a", large)})).json()["sent"]
        assert len(sent["file"][1]) == len(large) + 3


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("multipart/form-data", b"--x\r\n\r\n"),
        ("multipart/form-data; boundary=x", b"no form"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\nv\r\n--x--\r\n"),
    ],
)
async def test_a_broken_form_is_refused(serving: Callable[..., Any], content_type: str, content: bytes) -> None:
    async with serving(speaking("first", has("file"))) as client:
        answer = await client.post("/same", content=content, headers={"content-type": content_type})
        assert answer.status_code == 400
        assert "form" in answer.json()["first"]


async def test_a_form_over_the_limit_is_refused(serving: Callable[..., Any]) -> None:
    async with serving(speaking("first", None), max_body_mib=0.01) as client:
        answer = await client.post("/same", files={"file": ("a", b"x" * 20_000)})
        assert answer.status_code == 413


async def test_a_call_runs_on_the_model_that_fits_its_task(
    serving: Callable[..., Any], toy: ToyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(call: Call) -> Response:
        card = await call.card(call.body.get("model"), "tokens")
        assert call.model(card) is toy
        result = await call.run(card, call.body["texts"], tasks=("embed", "tokens"), field="texts")
        sizes = [len(tokens) for tokens in result.multi_vectors]
        return json_response({"vectors": result.vectors.tolist(), "sizes": sizes})

    operation = Operation(("/both",), handler, "Both")
    async with serving(Dialect("own", (operation,), lambda error: json.dumps([error.param]).encode())) as client:
        answer = await client.post("/both", json={"texts": ["3 1 | 4", "~2", "5 5"]})
        assert answer.json() == {"vectors": [expected("3 1 | 4"), expected("~2"), expected("5 5")], "sizes": [3, 0, 2]}
        refused = await client.post("/both", json={"texts": ["3", "refused"]})
        assert (refused.status_code, refused.json()) == (400, ["texts[1]"])
