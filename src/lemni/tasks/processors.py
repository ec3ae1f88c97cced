"""Images and sounds into a model's features: decoded by `lemni.media`, prepared by the model's own processor.

Each is prepared alone, so no array depends on what else is in a request; equal bytes give equal arrays. Thread-safe:
tokenising threads call it. References: the processors of transformers (extra `torch`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lemni.config import MediaSettings
from lemni.errors import InputTooLong, InvalidRequest, ModelLoadError, missing_extra
from lemni.media.audio import decode_audio
from lemni.media.images import decode_image
from lemni.tasks.feature_memory import Arrays
from lemni.types import Modality, Truncate

if TYPE_CHECKING:
    from PIL.Image import Image

_NO_IDS = np.zeros(1, dtype=np.int32)


@dataclass(frozen=True)
class Prepared:
    """An image or a sound as the model takes it.

    Attributes:
        ids: int32 [tokens] around it; one that is not looked at where the model reads no text with it.
        arrays: the processor's, by name, without a batch axis.
        size: patches or tokens that are computed.
        truncated: whether a part of it is not looked at.
    """

    ids: NDArray[np.int32]
    arrays: Arrays
    size: int
    truncated: bool = False


class Media(Protocol):
    """What prepares one modality.

    Attributes:
        typical: size of one, for estimates.
    """

    modality: Modality
    typical: int

    def __call__(self, data: bytes, truncate: Truncate) -> Prepared:
        """Prepare a file's bytes. Raises InvalidRequest, which does not name the item."""
        ...


class TowerImages:
    """Images for a tower of their own (CLIP and its kin).

    Args:
        patch_size: side of a patch, in pixels.
    """

    modality: Modality = "image"

    def __init__(self, folder: Path, patch_size: int, media: MediaSettings) -> None:
        self._processor = pretrained("AutoImageProcessor", folder)
        self._patch_size = patch_size
        self._media = media
        self.typical = self._prepared(_probe()).size

    def __call__(self, data: bytes, truncate: Truncate) -> Prepared:
        return self._prepared(decode_image(data, self._media))

    def _prepared(self, image: Image) -> Prepared:
        arrays = _without_batch(_refusing(self._processor, images=[image], return_tensors="pt"))
        return Prepared(_NO_IDS, arrays, patches(arrays["pixel_values"], self._patch_size))


class PageImages:
    """Images that stand between a prompt's tokens (ColPali and its kin), as `process_images` writes them.

    Args:
        processor: transformers' processor of the model.
        max_length: tokens of the longest sequence.
    """

    modality: Modality = "image"

    def __init__(self, processor: Any, patch_size: int, max_length: int, media: MediaSettings) -> None:
        self._processor = processor
        self._patch_size = patch_size
        self._max_length = max_length
        self._media = media
        # This first use also brings the tokenizer into the state in which threads may share it.
        self.typical = self._prepared(_probe()).size

    def __call__(self, data: bytes, truncate: Truncate) -> Prepared:
        prepared = self._prepared(decode_image(data, self._media))
        if len(prepared.ids) > self._max_length:
            raise InputTooLong(
                f"the image becomes {len(prepared.ids)} tokens, but this model takes at most {self._max_length}"
            )
        return prepared

    def _prepared(self, image: Image) -> Prepared:
        arrays = _without_batch(_refusing(self._processor.process_images, images=[image]))
        ids = arrays.pop("input_ids").astype(np.int32)
        for name in ("attention_mask", "token_type_ids", "labels"):
            arrays.pop(name, None)
        if "pixel_attention_mask" in arrays:  # a number of 8 bytes per pixel
            arrays["pixel_attention_mask"] = arrays["pixel_attention_mask"].astype(np.bool_)
        # The image's own encoder sees more patches than the sequence has tokens for them.
        size = max(len(ids), patches(arrays["pixel_values"], self._patch_size))
        return Prepared(ids, arrays, size)


class Sounds:
    """Sounds for CLAP: the log-mel spectrogram of ten seconds.

    transformers cuts longer sounds at random; here the cuts are in the middle of where they may fall.

    Args:
        size: tokens of the audio encoder.
    """

    modality: Modality = "audio"

    def __init__(self, folder: Path, size: int, media: MediaSettings) -> None:
        self._extractor = pretrained("AutoFeatureExtractor", folder)
        self._fuses = self._extractor.truncation == "fusion"
        if self._fuses:
            self._extractor._random_mel_fusion = _mel_fusion
        self._media = media
        self.typical = size

    def __call__(self, data: bytes, truncate: Truncate) -> Prepared:
        rate_hz, longest = int(self._extractor.sampling_rate), int(self._extractor.nb_max_samples)
        samples = decode_audio(data, rate_hz, self._media)
        truncated = len(samples) > longest and not self._fuses
        if truncated:
            if truncate == "error":
                raise InputTooLong(
                    f"the audio has {len(samples) / rate_hz:.1f} s; this model takes at most {longest / rate_hz:g} s"
                )
            start = (len(samples) - longest) // 2
            samples = samples[start : start + longest]
        arrays = _without_batch(_refusing(self._extractor, samples, sampling_rate=rate_hz, return_tensors="pt"))
        return Prepared(_NO_IDS, arrays, self.typical, truncated)


def need(module: str, package: str, extra: str, folder: Path) -> None:
    """Raises MissingExtra if a module is not installed."""
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise missing_extra(package, extra, f"{folder.name} ({extra} as input)")


def pretrained(loader: str, folder: Path) -> Any:
    """What a class of transformers, such as "AutoProcessor", makes of a folder.

    Raises:
        MissingExtra: transformers is not installed.
        ModelLoadError: the folder's files do not make one.
    """
    try:
        import transformers
    except ImportError:
        raise missing_extra("transformers", "torch", "a model of images or sound") from None
    try:
        return getattr(transformers, loader).from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever it raises, the cause is the folder's files
        raise ModelLoadError(f"{folder}: transformers cannot read the processor: {error}") from error


def patches(pixels: NDArray[Any], patch_size: int) -> int:
    """Patches of pixels [..., height, width], or of patches [n, values] that are cut already."""
    if pixels.ndim == 2:
        return len(pixels)
    *tiles, _, height, width = map(int, pixels.shape)
    return math.prod(tiles) * (height // patch_size) * (width // patch_size)


def _refusing(processor: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a processor; what it cannot work with is the caller's fault."""
    try:
        return processor(*args, **kwargs)
    except ValueError as error:
        raise InvalidRequest(f"the model's processor does not take it: {error}") from error


def _without_batch(found: Any) -> dict[str, NDArray[Any]]:
    """The arrays of one item, floats as float32."""
    arrays = {name: np.asarray(array)[0] for name, array in found.items()}
    floats = {name: array.astype(np.float32, copy=False) for name, array in arrays.items() if array.dtype.kind == "f"}
    return {**arrays, **floats}


def _probe() -> Image:
    from PIL.Image import new

    return new("RGB", (512, 512), "white")


def _mel_fusion(mel: NDArray[Any], total_frames: int, chunk_frames: int) -> NDArray[Any]:
    """`ClapFeatureExtractor._random_mel_fusion` with the middle of each range where that draws lots: the whole
    spectrogram shrunk, and one part each of its beginning, middle and end; [4, chunk_frames, mels]."""
    import torch

    ranges = np.array_split(np.arange(total_frames - chunk_frames + 1), 3)
    starts = [int(places[len(places) // 2]) if len(places) else 0 for places in ranges]
    shrunk = torch.nn.functional.interpolate(
        torch.from_numpy(np.ascontiguousarray(mel))[None, None], size=[chunk_frames, mel.shape[1]], mode="bilinear"
    )
    return np.stack([shrunk[0, 0].numpy(), *(mel[start : start + chunk_frames] for start in starts)])
