"""Image file → RGB pixels, with the size known before anything is unpacked. Pillow, as transformers reads images.

Thread-safe and synchronous: tokenising threads call it. Only the first frame or page is looked at, so a long
animation costs no more than its first picture.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from lemni.config import MediaSettings
from lemni.errors import InvalidRequest, missing_extra

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""What is opened. No format that runs another program or that decodes vector graphics."""

MAX_ASPECT = 200
"""Long side by short side; models scale the short side to a fixed size. The bound of Qwen2-VL's processor."""


def decode_image(data: bytes, settings: MediaSettings) -> Image:
    """The image of a file's bytes, mode RGB, upright, decoded.

    Raises:
        InvalidRequest: not an image of `FORMATS`, broken, or over `max_image_megapixels` or `MAX_ASPECT`. `item` is not
            set.
        MissingExtra: Pillow is not installed.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise missing_extra("pillow", "images", "Reading images") from error
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidRequest(f"the image has over {settings.max_image_megapixels:g} megapixels, the limit") from error
    except UnidentifiedImageError as error:
        raise InvalidRequest(_not_an_image(data)) from error
    except MemoryError:
        raise
    except Exception as error:  # the formats' readers raise whatever they stumble over
        raise InvalidRequest("the image is broken") from error
    with image:
        return _rgb(image, settings, in_place=True)


def as_rgb(image: Image, settings: MediaSettings) -> Image:
    """An opened image as models want it: EXIF orientation applied, then `convert("RGB")`.

    The two steps of `transformers.image_utils.load_image`, with its numbers: transparency is dropped, not painted over
    a background. One difference: 16-bit grey is scaled to 8 bits (PNG specification, 13.12), where Pillow cuts off
    all above 255 and leaves a white area.

    Raises:
        InvalidRequest: its pixels are broken, or it is over `max_image_megapixels` or `MAX_ASPECT`.
    """
    return _rgb(image, settings, in_place=False)


def _rgb(image: Image, settings: MediaSettings, *, in_place: bool) -> Image:
    import numpy as np
    from PIL import ImageOps
    from PIL.Image import fromarray

    width, height = image.size
    if width < 1 or height < 1:
        raise InvalidRequest("the image has no pixels")
    if width * height > settings.max_image_megapixels * 1e6:
        raise InvalidRequest(
            f"the image has {width} x {height} pixels; the limit is {settings.max_image_megapixels:g} megapixels"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InvalidRequest(
            f"the image has {width} x {height} pixels; its long side must be at most {MAX_ASPECT} times its short side"
        )
    try:
        upright = image if in_place else image.copy()
        ImageOps.exif_transpose(upright, in_place=True)
        upright.info.pop("transparency", None)  # it is dropped anyway, and Pillow would warn about it
        if upright.mode.startswith("I;16"):
            upright = fromarray((np.asarray(upright) >> 8).astype(np.uint8))
        return upright.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:  # truncated data, bad EXIF, or whatever a decoder stumbles over
        raise InvalidRequest("the image is broken or cut off") from error


def _not_an_image(data: bytes) -> str:
    known = "it must be one of " + ", ".join(FORMATS)
    if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return f"the image is a text in HTML, SVG or XML; {known}"
    return f"the image is in no known format, or broken; {known}"
