"""Images in any form that Python programs have them, as what a request carries: a URL or a data URI.

Files that every server reads (JPEG, PNG, WebP) are sent as they are, so that a vector is that of the file. Everything
else becomes a PNG, without loss, which needs Pillow (extra `images`). Knows no server; infinity_jobs.py calls it.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from lemni.client.wire.inputs import data_uri
from lemni.errors import InvalidRequest, missing_extra
from lemni.types import Image

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

ImageInput: TypeAlias = Union[
    str, "os.PathLike[str]", bytes, bytearray, io.BytesIO, Image, NDArray[np.uint8], "Picture"
]
"""A path, an http(s) URL or a data URI; a file's bytes; uint8 [height, width] or with 1, 3, 4 channels; of Pillow."""

Source: TypeAlias = str | Path | bytes
"""A URL or data URI, a file on disk that is sent as it is, or the bytes of such a file."""

_REMOTE = ("http://", "https://", "data:")
_HEAD = 12


def sources_of(images: Iterable[ImageInput]) -> list[Source]:
    """What to send for each image. Every file is looked at now, but those on disk are read when they are sent.

    Raises:
        TypeError: something that is no image, with its place.
        FileNotFoundError: no such file; other OSErrors where one cannot be read.
        InvalidRequest: not an image file, or an array that is no picture. `item` is its place.
        MissingExtra: it must be converted, and Pillow is not installed.
    """
    lone = isinstance(images, str | bytes | bytearray | os.PathLike | io.BytesIO | dict)
    if lone or not hasattr(images, "__iter__") or (isinstance(images, np.ndarray) and images.ndim != 4):
        raise InvalidRequest(f"images is of type {type(images).__name__}; it must be a list of images", param="images")
    return [_source(image, place) for place, image in enumerate(images)]


def uri_of(source: Source) -> str:
    """The URL, or the file as a data URI."""
    if isinstance(source, str):
        return source
    return data_uri(source.read_bytes() if isinstance(source, Path) else source)


def _source(image: Any, place: int) -> Source:
    if isinstance(image, str) and image[:8].lower().startswith(_REMOTE):
        return image
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        with path.open("rb") as file:
            head = file.read(_HEAD)
        return path if _travels(head) else _converted(path.read_bytes(), place, f" ({path})")
    if isinstance(image, bytes | bytearray | memoryview | io.BytesIO | Image):
        data = image.getvalue() if isinstance(image, io.BytesIO) else image.data if isinstance(image, Image) else image
        data = bytes(data)
        return data if _travels(data[:_HEAD]) else _converted(data, place)
    if isinstance(image, np.ndarray):
        return _drawn(image, place)
    pillow = sys.modules.get("PIL.Image")
    if pillow is not None and isinstance(image, pillow.Image):
        return _png(image, place)
    raise TypeError(
        f"Unsupported image type: {type(image)}. Expected str, Path, bytes, or BytesIO. "
        f"A Pillow image, a uint8 array and a lemni.Image will do too (images[{place}])"
    )


def _travels(head: bytes) -> bool:
    """Whether a file begins like a JPEG, PNG or WebP."""
    return head.startswith((b"\xff\xd8\xff", b"\x89PNG")) or (head[:4], head[8:12]) == (b"RIFF", b"WEBP")


def _converted(data: bytes, place: int, name: str = "") -> bytes:
    pillow = _pillow()
    try:
        with pillow.open(io.BytesIO(data)) as image:
            return _png(image, place)
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        words = f"images[{place}]{name} is not an image that Pillow can read: {error}"
        raise InvalidRequest(words, item=place, param=f"images[{place}]") from error


def _drawn(pixels: NDArray[Any], place: int) -> bytes:
    shape = pixels.shape
    good = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))
    if pixels.dtype != np.uint8 or not good or not pixels.size:
        raise InvalidRequest(
            f"images[{place}] is an array of {pixels.dtype} with the shape {shape}; "
            "it must be uint8 [height, width] or [height, width, 1, 3 or 4]",
            item=place,
            param=f"images[{place}]",
        )
    return _png(_pillow().fromarray(pixels[:, :, 0] if shape[2:] == (1,) else pixels), place)


def _png(image: Picture, place: int) -> bytes:
    """RGB and upright, as servers and transformers' `load_image` see a file: transparency is dropped, 16-bit grey is
    scaled to 8 bits."""
    from PIL import ImageOps

    if not image.width or not image.height:
        raise InvalidRequest(f"images[{place}] has no pixels", item=place, param=f"images[{place}]")
    upright = ImageOps.exif_transpose(image)
    upright.info.pop("transparency", None)
    if upright.mode.startswith("I;16"):
        upright = _pillow().fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    out = io.BytesIO()
    upright.convert("RGB").save(out, "PNG", compress_level=1)  # a photograph hardly shrinks by more
    return out.getvalue()


def _pillow() -> Any:
    try:
        from PIL import Image as pillow
    except ImportError as error:
        raise missing_extra("pillow", "images", "Sending images that are not JPEG, PNG or WebP files") from error
    return pillow
