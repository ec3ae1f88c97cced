"""Images against transformers' `load_image`, on photographs and on every odd kind of file; and what is refused."""

from __future__ import annotations

import base64
import io
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers.image_utils import load_image

from lemni.config import MediaSettings
from lemni.errors import InvalidRequest
from lemni.media.images import FORMATS, MAX_ASPECT, as_rgb, decode_image

SETTINGS = MediaSettings.model_validate({})
SKIMAGE = find_spec("skimage")
assert SKIMAGE is not None
assert SKIMAGE.origin is not None
PHOTOGRAPHS = Path(SKIMAGE.origin).parent / "data"


def photograph(size: tuple[int, int] = (96, 64)) -> Image.Image:
    with Image.open(PHOTOGRAPHS / "astronaut.png") as image:
        return image.resize(size)


def saved(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def refused(data: bytes, **settings: object) -> str:
    with pytest.raises(InvalidRequest) as caught:
        decode_image(data, MediaSettings.model_validate(settings))
    assert caught.value.item is None
    return caught.value.message


def check(data: bytes) -> Image.Image:
    """Decode, and compare with the reference."""
    image = decode_image(data, SETTINGS)
    assert image.mode == "RGB"
    reference = load_image(base64.b64encode(data).decode())
    np.testing.assert_array_equal(np.asarray(image), np.asarray(reference))
    return image


@pytest.mark.parametrize("name", ["astronaut.png", "rocket.jpg", "camera.png", "logo.png", "multipage.tif"])
def test_photographs(name: str) -> None:
    image = check((PHOTOGRAPHS / name).read_bytes())
    assert np.asarray(image).std() > 10


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("size", [(96, 64), (1, 1), (1, MAX_ASPECT), (3, 2)])
def test_every_format_down_to_one_pixel(file_format: str, size: tuple[int, int]) -> None:
    assert check(saved(photograph(size), file_format)).size == size


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I", "F", "CMYK", "YCbCr", "LAB", "PA"])
def test_every_mode(mode: str) -> None:
    file_format = "PNG" if mode in ("1", "L", "LA", "P", "RGB", "RGBA") else "TIFF"
    source = photograph().convert("P" if mode == "PA" else "RGB").convert(mode) if mode != "LAB" else lab()
    check(saved(source, file_format))


def lab() -> Image.Image:
    return Image.merge("LAB", photograph().split())


def test_transparency_is_dropped() -> None:
    image = photograph().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    found = check(saved(image, "PNG"))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(image)[:, :, :3])
    check(saved(photograph().convert("LA"), "PNG"))


def test_a_palette_with_transparent_colours_is_read_without_a_warning() -> None:
    image = photograph().convert("P")
    found = decode_image(saved(image, "PNG", transparency=bytes(range(256))), SETTINGS)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(image.convert("RGB")))


def test_a_cmyk_jpeg() -> None:
    check(saved(photograph().convert("CMYK"), "JPEG"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = check(saved(photograph(), "JPEG", exif=exif))
    assert found.size == ((96, 64) if orientation < 5 else (64, 96))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_grey_in_sixteen_bits_is_scaled(file_format: str) -> None:
    values = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    found = np.asarray(decode_image(saved(Image.fromarray(values), file_format), SETTINGS))
    np.testing.assert_array_equal(found, np.repeat((values // 256).astype(np.uint8)[:, :, None], 3, axis=2))


def test_of_an_animation_or_several_pages_the_first_is_taken() -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "green", "blue")]
    for file_format in ("GIF", "PNG", "WEBP", "TIFF", "AVIF"):
        data = saved(frames[0], file_format, save_all=True, append_images=frames[1:])
        red, green, blue = np.asarray(check(data)).reshape(-1, 3).mean(axis=0)
        assert red > 240
        assert green < 15
        assert blue < 15


def test_a_long_animation_costs_its_first_frame_only() -> None:
    data = saved(Image.new("P", (2, 2)), "GIF")
    frame = data[data.index(b",") : -1]
    many = data[:-1] + frame * 500_000 + b"junk instead of an end"
    assert len(many) > 5e6
    assert decode_image(many, SETTINGS).size == (2, 2)


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (9_500, 9_500), (8_001, 8_000), (2**31 - 1,) * 2])
def test_a_decompression_bomb_is_refused_by_its_header(width: int, height: int) -> None:
    assert "megapixels" in refused(png(width, height))
    with pytest.raises(InvalidRequest, match="megapixels"):
        decode_image(gif_header(min(width, 65535), min(height, 65535)), SETTINGS)


def gif_header(width: int, height: int) -> bytes:
    data = saved(Image.new("P", (1, 1)), "GIF")
    return data[:6] + struct.pack("<HH", width, height) + data[10:]


def test_a_bomb_costs_no_memory() -> None:
    program = (
        "import sys, resource; from lemni.config import MediaSettings; from lemni.errors import InvalidRequest\n"
        "from lemni.media.images import decode_image; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        "try: decode_image(sys.stdin.buffer.read(), MediaSettings.model_validate({}))\n"
        "except InvalidRequest as error: print(error)"
    )
    bomb = png(40_000, 40_000, bytes(10**7))  # 4.8 GB of pixels
    done = subprocess.run([sys.executable, "-c", program], input=bomb, capture_output=True, check=True)
    assert done.stdout == b"the image has over 64 megapixels, the limit\n"


def test_the_pixel_limit_is_exact() -> None:
    data = saved(Image.new("RGB", (100, 100)), "PNG")
    assert decode_image(data, MediaSettings.model_validate({"max_image_megapixels": 0.01})).size == (100, 100)
    over = refused(saved(Image.new("RGB", (101, 100)), "PNG"), max_image_megapixels=0.01)
    assert over == "the image has 101 x 100 pixels; the limit is 0.01 megapixels"


def test_a_strip_that_a_resize_would_blow_up_is_refused() -> None:
    message = refused(saved(Image.new("L", (1, MAX_ASPECT + 1)), "PNG"))
    assert message == "the image has 1 x 201 pixels; its long side must be at most 200 times its short side"


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_file_that_is_cut_off_is_refused(file_format: str) -> None:
    data = saved(photograph(), file_format)
    for length in (10, 40, len(data) // 2, len(data) * 9 // 10):
        assert "broken" in refused(data[:length])


@pytest.mark.parametrize("file_format", FORMATS)
def test_random_damage_is_an_image_or_an_error_of_the_client(file_format: str) -> None:
    data = np.frombuffer(saved(photograph(), file_format), np.uint8)
    random = np.random.default_rng(0)
    refusals = 0
    for _ in range(150):
        damaged = data.copy()
        # The front holds the headers.
        places = np.concatenate([random.integers(0, len(data), 3), random.integers(0, min(200, len(data)), 3)])
        damaged[places] = random.integers(0, 256, 6)
        try:
            assert decode_image(damaged.tobytes(), SETTINGS).mode == "RGB"
        except InvalidRequest:
            refusals += 1
    assert refusals


@pytest.mark.parametrize(
    "data",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<?xml version='1.0'?><svg/>",
        b"\xef\xbb\xbf\r\n<!DOCTYPE html><html></html>",
    ],
)
def test_markup_is_named(data: bytes) -> None:
    assert refused(data).startswith("the image is a text in HTML, SVG or XML; it must be one of JPEG, PNG, ")


def test_other_formats_are_not_opened() -> None:
    image = photograph()
    for file_format in ("PPM", "ICO", "PCX", "TGA", "SGI", "EPS", "PDF", "JPEG2000", "DDS"):
        assert "in no known format" in refused(saved(image, file_format)), file_format
    for data in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"%PDF-1.7\n", b"MZ", b"", b"\0", b"hello"):
        assert "in no known format" in refused(data)


def test_an_image_of_the_caller_stays_as_it_is() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(io.BytesIO(saved(photograph(), "JPEG", exif=exif))) as image:
        assert as_rgb(image, SETTINGS).size == (64, 96)
        assert (image.size, image.getexif()[0x0112]) == ((96, 64), 6)
    array = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    np.testing.assert_array_equal(np.asarray(as_rgb(Image.fromarray(array), SETTINGS)), array)
    with pytest.raises(InvalidRequest, match="megapixels"):
        as_rgb(Image.new("1", (9000, 9000)), SETTINGS)


def test_many_threads() -> None:
    good = [saved(photograph((32 + i, 40)), file_format) for i, file_format in enumerate(FORMATS)]

    def work(i: int) -> tuple[int, int] | str:
        data = good[i % len(good)]
        return decode_image(data, SETTINGS).size if i % 3 else refused(data[: len(data) // 2])

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(300)))
    assert all("broken" in entry if isinstance(entry, str) else entry[1] == 40 for entry in found)
    assert found[1] == (33, 40)
