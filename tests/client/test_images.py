"""Images in every form against the file that they were made from: the bytes on the wire, and a server's answer."""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lemni
from lemni.client.images import sources_of, uri_of
from lemni.client.infinity import InfinityEmbeddings
from lemni.errors import InvalidRequest, MissingExtra
from tests.client.late_interaction_server import COLQWEN, Live
from tests.tiny_multimodal import picture

pillow = pytest.importorskip("PIL.Image")


def sent(image: Any) -> tuple[str, bytes]:
    """Media type and content of the data URI."""
    [source] = sources_of([image])
    head, _, content = uri_of(source).partition(",")
    assert head.startswith("data:")
    assert head.endswith(";base64")
    return head[5:-7], base64.b64decode(content, validate=True)


def opened(data: bytes) -> Any:
    return pillow.open(io.BytesIO(data))


def saved(image: Any, kind: str, **how: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    path.write_bytes(picture())
    return path


@pytest.mark.parametrize(("kind", "media"), [("JPEG", "image/jpeg"), ("PNG", "image/png"), ("WEBP", "image/webp")])
def test_files_are_sent_unchanged(tmp_path: Path, kind: str, media: str) -> None:
    data = picture(kind=kind)
    (tmp_path / "picture").write_bytes(data)
    read = io.BytesIO(data)
    read.read(10)
    forms = [str(tmp_path / "picture"), tmp_path / "picture", data, bytearray(data), memoryview(data), read]
    for form in [*forms, lemni.Image(data)]:
        assert sent(form) == (media, data)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
def test_other_files_become_png_without_loss(tmp_path: Path, kind: str) -> None:
    data = picture(kind=kind)
    (tmp_path / "picture").write_bytes(data)
    for form in (data, tmp_path / "picture"):
        media, content = sent(form)
        assert media == "image/png"
        np.testing.assert_array_equal(opened(content), opened(data).convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "1", "CMYK", "YCbCr"])
def test_images_of_pillow(mode: str) -> None:
    image = opened(picture()).convert(mode)
    media, content = sent(image)
    assert (media, opened(content).mode) == ("image/png", "RGB")
    np.testing.assert_array_equal(opened(content), image.convert("RGB"))


def test_images_of_pillow_are_turned_upright_and_lose_no_bits_of_light() -> None:
    exif = pillow.Exif()
    exif[0x0112] = 6
    data = saved(opened(picture(64, 48)), "PNG", exif=exif)
    assert opened(sent(opened(data))[1]).size == (48, 64)
    deep = pillow.fromarray(np.array([[0, 255, 256, 65535]], np.uint16))
    np.testing.assert_array_equal(np.asarray(opened(sent(deep)[1]))[0, :, 0], [0, 0, 1, 255])


def test_transparency_is_dropped() -> None:
    image = opened(picture()).quantize(8)
    image.info["transparency"] = bytes([0, 128, 255])
    _, content = sent(image)
    assert "transparency" not in opened(content).info
    assert "transparency" in image.info


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4), (1, 1, 3)])
def test_arrays(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    media, content = sent(pixels)
    assert media == "image/png"
    rgb = pixels if pixels.ndim == 3 and shape[2] > 1 else np.repeat(pixels.reshape(shape[0], shape[1], 1), 3, axis=2)
    np.testing.assert_array_equal(opened(content), rgb[:, :, :3])
    np.testing.assert_array_equal(opened(sent(np.asfortranarray(pixels)[::-1])[1]), rgb[::-1, :, :3])


def test_urls_and_data_uris_are_the_server_s_to_read() -> None:
    uris = [
        "https://example.org/cat.jpg",
        "http://example.org/cat",
        "HTTPS://example.org/a",
        "data:image/png;base64,AA",
    ]
    assert [uri_of(source) for source in sources_of(uris)] == uris


def test_a_stack_of_pictures_is_a_list() -> None:
    stack = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)
    for source, pixels in zip(sources_of(stack), stack, strict=True):  # type: ignore[arg-type]
        assert isinstance(source, bytes)
        np.testing.assert_array_equal(opened(source), pixels)


@pytest.mark.parametrize("image", [3, None, 1.5, ["nested"], {"image": "x"}, object()])
def test_what_is_no_image(image: Any) -> None:
    words = f"Unsupported image type: {type(image)}. Expected str, Path, bytes, or BytesIO."
    with pytest.raises(TypeError) as caught:
        sources_of([picture(), image])
    assert str(caught.value).startswith(words)
    assert "images[1]" in str(caught.value)


def test_a_file_that_is_not_there_is_named(file: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no-such\.png"):
        sources_of([file, file.with_name("no-such.png")])
    with pytest.raises(IsADirectoryError, match=file.parent.name):
        sources_of([file.parent])


def broken() -> Iterator[tuple[Any, str]]:
    yield b"", r"images\[1\] is not an image"
    yield b"neither a picture nor anything else", r"images\[1\] is not an image"
    yield picture(kind="GIF")[:200], r"images\[1\] is not an image"
    yield np.zeros((2, 3, 3)), r"images\[1\] is an array of float64 with the shape \(2, 3, 3\); it must be uint8"
    yield np.zeros((2, 3, 2), np.uint8), r"\(2, 3, 2\)"
    yield np.zeros((0, 3, 3), np.uint8), r"\(0, 3, 3\)"
    yield np.zeros(3, np.uint8), r"\(3,\)"
    yield pillow.new("RGB", (0, 4)), r"images\[1\] has no pixels"


@pytest.mark.parametrize(("image", "words"), broken())
def test_broken_images_are_named(image: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        sources_of([picture(), image])
    assert caught.value.item == 1


def test_a_broken_file_is_named_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(InvalidRequest, match=r"images\[0\] \(.*notes\.txt\) is not an image"):
        sources_of([tmp_path / "notes.txt"])


@pytest.mark.parametrize("images", ["cat.png", b"\xff\xd8\xff", Path("cat.png"), 3, np.zeros((4, 4, 3), np.uint8)])
def test_a_lone_image_is_no_list(images: Any) -> None:
    with pytest.raises(InvalidRequest, match="must be a list of images"):
        sources_of(images)


def test_files_need_no_pillow(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert sent(file) == ("image/png", file.read_bytes())
    with pytest.raises(MissingExtra, match=r"lemni\[images\]"):
        sources_of([np.zeros((4, 4, 3), np.uint8)])


def test_files_on_disk_wait_there(file: Path) -> None:
    assert sources_of([file, str(file)]) == [file, file]


def test_every_form_has_the_vectors_of_the_original_file(late: Live, file: Path) -> None:
    """Also in JPEG, which would not survive being compressed once more."""
    jpeg = picture(kind="JPEG")
    image = opened(jpeg)
    uri = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    forms = [jpeg, io.BytesIO(jpeg), image, np.asarray(image), lemni.Image(jpeg), uri]
    with InfinityEmbeddings(late.url) as embeddings, lemni.Client(late.url, model=COLQWEN) as client:
        [expected] = client.multi_vector([lemni.Image(jpeg)])
        for found in embeddings.embed_arrays(forms, "image"):
            np.testing.assert_array_equal(found, expected)
        [expected] = client.multi_vector([lemni.Image(file.read_bytes())])
        for form in (str(file), file, opened(file.read_bytes())):
            np.testing.assert_array_equal(embeddings.embed_image(form), expected)
