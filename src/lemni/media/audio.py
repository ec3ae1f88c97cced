"""Audio file → float32 samples of one channel at the rate a model wants; soundfile (libsndfile) and soxr.

The steps of `librosa.load` and `transformers.audio_utils.load_audio`: channels averaged, then resampled by soxr HQ.
Thread-safe and synchronous: tokenising threads call it. Lengths are checked in the header and again while reading.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lemni.config import MediaSettings
from lemni.errors import InvalidRequest, missing_extra

if TYPE_CHECKING:
    import soundfile

MAX_CHANNELS = 8
MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 192_000
_BLOCK_FRAMES = 1 << 16
# Only these reach libsndfile, which also reads formats that nobody sends. MP3 begins with a tag or with a frame.
_BEGINNINGS = (b"RIFF", b"RIFX", b"RF64", b"fLaC", b"OggS", b"FORM", b"ID3")
_KNOWN = "WAV, FLAC, Ogg, MP3 or AIFF"


def decode_audio(data: bytes, rate_hz: int, settings: MediaSettings) -> NDArray[np.float32]:
    """The samples of a file's bytes: float32 [ceil(frames * rate_hz / file's rate)], about -1 to 1.

    Raises:
        InvalidRequest: no known format, broken, empty, longer than `max_audio_s`, over `MAX_CHANNELS` channels, or at a
            rate outside `MIN_RATE_HZ` to `MAX_RATE_HZ`. `item` is not set.
        MissingExtra: soundfile or soxr is not installed.
    """
    try:
        import soundfile
        import soxr
    except ImportError as error:
        raise missing_extra(str(error.name), "audio", "Reading audio") from error
    if not data.startswith(_BEGINNINGS) and not _is_mp3_frame(data):
        raise InvalidRequest(f"the audio is in no known format; it must be {_KNOWN}")
    try:
        with soundfile.SoundFile(_Bytes(data)) as file:
            own_hz = file.samplerate
            samples = _read_mono(file, settings)
    except soundfile.LibsndfileError as error:
        raise InvalidRequest(f"the audio is broken, or not {_KNOWN}") from error
    if own_hz == rate_hz:
        return samples
    resampled = soxr.resample(samples, own_hz, rate_hz, quality="HQ")
    wanted = math.ceil(len(samples) * rate_hz / own_hz)
    return np.pad(resampled, (0, max(0, wanted - len(resampled))))[:wanted]


class _Bytes(io.BytesIO):
    """Broken files make libsndfile seek to before the start; an exception there would be printed, not raised."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)
        except ValueError:
            return self.tell()


def _read_mono(file: soundfile.SoundFile, settings: MediaSettings) -> NDArray[np.float32]:
    """All frames, averaged over channels, block by block: many channels never lie in memory at full length."""
    if not MIN_RATE_HZ <= file.samplerate <= MAX_RATE_HZ:
        raise InvalidRequest(
            f"the audio has {file.samplerate} samples a second; allowed are {MIN_RATE_HZ} to {MAX_RATE_HZ}"
        )
    if file.channels > MAX_CHANNELS:
        raise InvalidRequest(f"the audio has {file.channels} channels; the limit is {MAX_CHANNELS}")
    limit = int(settings.max_audio_s * file.samplerate)
    too_long = InvalidRequest(f"the audio is longer than {settings.max_audio_s:g} s")
    promised = file.frames
    if promised > limit:
        raise too_long
    blocks: list[NDArray[np.float32]] = []
    frames = 0
    while len(block := file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
        frames += len(block)
        if frames > limit:
            raise too_long
        blocks.append(block.mean(axis=1) if file.channels > 1 else block[:, 0])
    if frames < promised and file.format != "MP3":  # whose header only estimates
        raise InvalidRequest(f"the audio is broken or cut off: {frames} of {promised} frames can be read")
    if not frames:
        raise InvalidRequest("the audio has no samples")
    samples = np.concatenate(blocks)
    if not np.isfinite(samples).all():
        raise InvalidRequest("the audio has samples that are not numbers")
    return samples


def _is_mp3_frame(data: bytes) -> bool:
    # Eleven bits set, then a version and a layer that exist (ISO/IEC 11172-3).
    return len(data) > 2 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0 and data[1] & 0x06 != 0
