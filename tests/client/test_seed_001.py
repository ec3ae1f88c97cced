"""Every block of code in the documentation that `InfinityEmbeddings` is written for, AutoRAG-Research's page
"Infinity", against a live Lemni. Only the import is another, and the port is the one that was free."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import lemni
from tests.client.late_interaction_server import COLBERT, COLPALI, COLQWEN, WIDTH, Live

CONFIGURATION = Path(__file__).parents[2] / "examples" / "infinity_colqwen2.yaml"
SKIMAGE = find_spec("skimage")
NAMES = ["image.png", "img1.png", "img2.png", "img3.png"]
PHOTOGRAPHS = ["chelsea.png", "coffee.png", "page.png", "astronaut.png"]

TEXT_BLOCK = """
from autorag_research.embeddings.infinity import InfinityEmbeddings

embeddings = InfinityEmbeddings(
    url="http://localhost:7997",
    model_name="michaelfeil/colqwen2-v0.1",
)

# Single text
text_emb = embeddings.embed_text("What is retrieval augmented generation?")
# Returns: list[list[float]] -- shape (num_tokens, 128)

# Single query (delegates to embed_text)
query_emb = embeddings.embed_query("What is RAG?")

# Batch -- single API call
doc_embs = embeddings.embed_documents(["Document 1", "Document 2", "Document 3"])
# Returns: list[list[list[float]]] -- one multi-vector per document
"""
IMAGE_BLOCK = """
# From file path
image_emb = embeddings.embed_image("path/to/image.png")

# From bytes
with open("image.jpg", "rb") as f:
    image_emb = embeddings.embed_image(f.read())

# Batch images -- single API call
image_embs = embeddings.embed_images(["img1.png", "img2.png", "img3.png"])
"""
ASYNC_BLOCK = """
import asyncio

async def main():
    emb = InfinityEmbeddings()

    text_emb = await emb.aembed_text("async text")
    query_emb = await emb.aembed_query("async query")
    image_emb = await emb.aembed_image("image.png")

    doc_embs = await emb.aembed_documents(["doc1", "doc2"])
    img_embs = await emb.aembed_images(["img1.png", "img2.png"])

asyncio.run(main())
"""
BATCH_BLOCK = """
embeddings = InfinityEmbeddings(embed_batch_size=5)

# Processes 100 texts in batches of 5
all_embs = embeddings.embed_documents_batch(texts_list)

# Processes 50 images in batches of 5
all_img_embs = embeddings.embed_images_batch(image_paths)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with photographs under the names of the page."""
    if SKIMAGE is None or SKIMAGE.origin is None:
        pytest.skip("the photographs are those of scikit-image")
    from PIL import Image

    data = Path(SKIMAGE.origin).parent / "data"
    for name, photograph in zip(NAMES, PHOTOGRAPHS, strict=True):
        (tmp_path / name).write_bytes((data / photograph).read_bytes())
    (tmp_path / "path" / "to").mkdir(parents=True)
    (tmp_path / "path" / "to" / "image.png").write_bytes((data / "coffee.png").read_bytes())
    with Image.open(data / "astronaut.png") as image:
        image.save(tmp_path / "image.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(block: str, url: str, **names: Any) -> dict[str, Any]:
    """The names that the block leaves behind."""
    code = block.replace("autorag_research.embeddings.infinity", "lemni.client.infinity")
    exec(code.replace("http://localhost:7997", url), names)
    return names


def imported(**names: Any) -> dict[str, Any]:
    from lemni.client.infinity import InfinityEmbeddings

    return {"InfinityEmbeddings": InfinityEmbeddings, **names}


def same(found: Any, expected: NDArray[np.float32]) -> None:
    """Nested lists of floats with the reference's numbers."""
    assert type(found) is list
    assert type(found[0]) is list
    assert type(found[0][0]) is float
    assert np.shape(found) == expected.shape
    assert expected.shape[1] == WIDTH
    np.testing.assert_allclose(found, expected, atol=1e-5)


def all_same(found: Sequence[Any], expected: Sequence[NDArray[np.float32]]) -> None:
    assert type(found) is list
    for one, other in zip(found, expected, strict=True):
        same(one, other)


def counts(live: Live) -> list[int]:
    """How many inputs each request had."""
    return [len(body["input"]) for body in live.asked]


def test_text_embedding(late: Live) -> None:
    left = run(TEXT_BLOCK, late.url)
    assert counts(late) == [1, 1, 3]
    model = late.of(COLQWEN)
    same(left["text_emb"], model.query("What is retrieval augmented generation?"))
    same(left["query_emb"], model.query("What is RAG?"))
    all_same(left["doc_embs"], [model.document(f"Document {number}") for number in (1, 2, 3)])


def test_text_embedding_is_that_of_the_library(late: Live) -> None:
    left = run(TEXT_BLOCK, late.url)
    with lemni.load(str(late.folders[COLQWEN]), device="cpu") as embedder:
        all_same([left["query_emb"]], embedder.multi_vector(["What is RAG?"]))
        documents = ["Document 1", "Document 2", "Document 3"]
        all_same(left["doc_embs"], embedder.multi_vector(documents, input_type="document"))


@pytest.mark.parametrize("model", [COLQWEN, COLPALI])
def test_image_embedding(late: Live, folder: Path, model: str) -> None:
    from lemni.client.infinity import InfinityEmbeddings

    embeddings = InfinityEmbeddings(url=late.url, model_name=model)
    left = run(IMAGE_BLOCK, late.url, embeddings=embeddings)
    assert counts(late) == [1, 1, 3]
    assert {body["modality"] for body in late.asked} == {"image"}
    reference = late.of(model)
    same(left["image_emb"], reference.image((folder / "image.jpg").read_bytes()))
    same(embeddings.embed_image("path/to/image.png"), reference.image((folder / "img1.png").read_bytes()))
    all_same(left["image_embs"], [reference.image((folder / name).read_bytes()) for name in NAMES[1:]])


def test_async(late: Live, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFINITY_API_URL", late.url + "/")
    # The block keeps nothing: the same `main` returns here what it has found.
    block = ASYNC_BLOCK.replace("asyncio.run(main())", "found = asyncio.run(main())")
    block = block.replace('"img2.png"])\n', '"img2.png"])\n    return locals()\n')
    found = run(block, late.url, **imported())["found"]
    assert counts(late) == [1, 1, 1, 2, 2]
    assert [body["model"] for body in late.asked] == [COLQWEN] * 5
    model = late.of(COLQWEN)
    same(found["text_emb"], model.query("async text"))
    same(found["query_emb"], model.query("async query"))
    all_same(found["doc_embs"], [model.document(text) for text in ("doc1", "doc2")])
    images = [model.image((folder / name).read_bytes()) for name in NAMES]
    same(found["image_emb"], images[0])
    all_same(found["img_embs"], images[1:3])


def test_async_to_the_letter(late: Live, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFINITY_API_URL", late.url)
    run(ASYNC_BLOCK, late.url, **imported())
    assert counts(late) == [1, 1, 1, 2, 2]


def test_automatic_batching(late: Live, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFINITY_API_URL", late.url)
    texts = [f"Text number {number}" for number in range(100)]
    paths = [folder / NAMES[number % 4] for number in range(50)]
    left = run(BATCH_BLOCK, late.url, **imported(texts_list=texts, image_paths=paths))
    assert counts(late) == [5] * 30
    assert sorted(text for body in late.asked[:20] for text in body["input"]) == sorted(texts)
    model = late.of(COLQWEN)
    all_same(left["all_embs"][7::31], [model.document(text) for text in texts[7::31]])
    images = [model.image((folder / name).read_bytes()) for name in NAMES]
    all_same(left["all_img_embs"], [images[number % 4] for number in range(50)])


def test_12_texts_in_batches_of_5_are_3_requests_in_order(late: Live) -> None:
    from lemni.client.infinity import InfinityEmbeddings

    texts = [f"Text number {number}" for number in range(12)]
    model = late.of(COLQWEN)
    expected = [model.document(text) for text in texts]
    for concurrency in (1, 4):
        late.asked.clear()
        with InfinityEmbeddings(late.url, embed_batch_size=5, concurrency=concurrency) as embeddings:
            found = embeddings.embed_documents_batch(texts)
        asked = late.asked if concurrency == 1 else sorted(late.asked, key=lambda body: texts.index(body["input"][0]))
        assert [body["input"] for body in asked] == [texts[:5], texts[5:10], texts[10:]]
        all_same(found, expected)


@pytest.mark.parametrize("encoding", ["base64", "float"])
def test_the_request_is_the_one_of_the_page(late: Live, encoding: Any) -> None:
    from lemni.client.infinity import InfinityEmbeddings

    with InfinityEmbeddings(late.url, encoding=encoding) as embeddings:
        embeddings.embed_documents(["text1", "text2"])
        embeddings.embed_image(_pixel())
    body = {"input": ["text1", "text2"], "model": COLQWEN, "modality": "text", "encoding": encoding}
    # Infinity itself reads only `encoding_format`; `input_type` is Lemni's.
    assert late.asked[0] == {**body, "encoding_format": encoding, "input_type": "document"}
    assert late.asked[1] == {
        **body,
        "modality": "image",
        "encoding_format": encoding,
        "input": [late.asked[1]["input"][0]],
    }


def test_base64_equals_float_to_the_bit(late: Live, folder: Path) -> None:
    from lemni.client.infinity import InfinityEmbeddings

    for model in (COLQWEN, COLPALI, COLBERT):
        coded, plain = (InfinityEmbeddings(late.url, model, one) for one in ("base64", "float"))  # type: ignore[arg-type]
        assert coded.embed_documents(["a cat", "two dogs"]) == plain.embed_documents(["a cat", "two dogs"])
        if model != COLBERT:
            assert coded.embed_image("img2.png") == plain.embed_image("img2.png")


def test_the_configuration_file(late: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    from lemni.client.infinity import InfinityEmbeddings

    monkeypatch.delenv("INFINITY_API_URL", raising=False)
    with initialize_config_dir(str(CONFIGURATION.parent), version_base=None):
        configuration = compose(CONFIGURATION.stem)
        assert instantiate(configuration) == InfinityEmbeddings("http://localhost:7997")
        monkeypatch.setenv("INFINITY_API_URL", late.url)
        embeddings = instantiate(compose(CONFIGURATION.stem, ["embed_batch_size=4", "encoding=float"]))
    assert embeddings == InfinityEmbeddings(late.url, COLQWEN, "float", 128, 60.0, 3, 4)
    same(embeddings.embed_query("a cat"), late.of(COLQWEN).query("a cat"))


def _pixel() -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(out, "JPEG")
    return out.getvalue()
