"""Forms: the same fields as JSON, files as bytes."""

from __future__ import annotations

import httpx


async def test_texts_and_options(real: httpx.AsyncClient) -> None:
    body = {"input": ["a", "7"], "dimensions": 64, "truncate": True}
    plain = (await real.post("/v1/embeddings", json=body)).json()
    fields = [
        ("input", (None, "a")),
        ("input", (None, "7")),
        ("dimensions", (None, "64")),
        ("truncate", (None, "true")),
    ]
    form = await real.post("/v1/embeddings", files=fields)
    assert form.status_code == 200, form.text
    assert form.json()["data"] == plain["data"]


async def test_objects_with_texts(real: httpx.AsyncClient) -> None:
    plain = (await real.post("/v1/embeddings", json={"input": ["a", "b"]})).json()
    objects = (await real.post("/v1/embeddings", json={"input": [{"text": "a"}, {"type": "text", "text": "b"}]})).json()
    assert objects["data"] == plain["data"]


async def test_a_file_is_an_image(real: httpx.AsyncClient) -> None:
    answer = await real.post("/v1/embeddings", files={"input": ("cat.png", b"\x89PNG", "image/png")})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert "takes no image" in error["message"]
    assert error["param"] == "input"


async def test_a_broken_form(real: httpx.AsyncClient) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = await real.post("/v1/embeddings", content=b"--y\r\nnonsense", headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


async def test_a_charset_that_gives_what_is_no_text(real: httpx.AsyncClient) -> None:
    form = b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n\\ud800\r\n--x--\r\n'
    headers = {"content-type": "multipart/form-data; boundary=x; charset=unicode_escape"}
    answer = await real.post("/tokenize", content=form, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "prompt holds a lone surrogate, which is no character"


async def test_a_file_by_another_name_is_the_input_and_one_document_a_list(real: httpx.AsyncClient) -> None:
    answer = await real.post("/v1/embeddings", files={"file": ("cat.png", b"\x89PNG", "image/png")})
    assert "takes no image" in answer.json()["error"]["message"]
    form = [("query", (None, "cats")), ("documents", (None, "Cats sleep."))]
    ranked = await real.post("/rerank", files=form)
    assert [one["index"] for one in ranked.json()["results"]] == [0]
