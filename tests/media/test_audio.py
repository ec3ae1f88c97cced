"""Audio against transformers' `load_audio` (the steps of librosa) and against sines whose samples are known."""

from __future__ import annotations

import base64
import contextlib
import io
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from transformers.audio_utils import load_audio

from lemni.config import MediaSettings
from lemni.errors import InvalidRequest
from lemni.media.audio import MAX_CHANNELS, decode_audio

SETTINGS = MediaSettings.model_validate({})
FILES = [
    *(("WAV", subtype) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "IMA_ADPCM")),
    *(("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")),
    *(("AIFF", "PCM_16"), ("RF64", "PCM_16")),
]


def sound(rate_hz: int = 24000, seconds: float = 1.0, channels: int = 1, seed: int = 0) -> NDArray[np.float32]:
    """Sines and noise: float32 [frames, channels]."""
    time = np.arange(int(rate_hz * seconds))[:, None] / rate_hz
    pitch = 220.0 * (1 + np.arange(channels))
    noise = np.random.default_rng(seed).normal(scale=0.05, size=(len(time), channels))
    return (0.4 * np.sin(2 * np.pi * pitch * time) + noise).astype(np.float32)


def saved(samples: NDArray[np.float32], rate_hz: int, file_format: str = "WAV", subtype: str = "FLOAT") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=file_format, subtype=subtype)
    return file.getvalue()


def refused(data: bytes, **settings: object) -> str:
    with pytest.raises(InvalidRequest) as caught:
        decode_audio(data, 48000, MediaSettings.model_validate(settings))
    assert caught.value.item is None
    return caught.value.message


@pytest.mark.parametrize(("file_format", "subtype"), FILES)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate_hz", [16000, 24000, 48000])
def test_like_transformers_and_librosa(file_format: str, subtype: str, channels: int, rate_hz: int) -> None:
    data = saved(sound(channels=channels), 24000, file_format, subtype)
    found = decode_audio(data, rate_hz, SETTINGS)
    reference = load_audio(base64.b64encode(data).decode(), sampling_rate=rate_hz, backend="soundfile")
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, reference, rtol=0, atol=1e-6)
    assert abs(len(found) - rate_hz) <= rate_hz // 10  # compressed formats add a little


@pytest.mark.parametrize("own_hz", [8000, 11025, 22050, 44100, 48000, 96000])
def test_a_sine_stays_the_same_sine_at_another_rate(own_hz: int) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(own_hz) / own_hz).astype(np.float32)
    found = decode_audio(saved(tone, own_hz), 16000, SETTINGS)
    assert found.shape == (16000,)
    expected = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    np.testing.assert_allclose(found[800:-800], expected[800:-800], atol=2e-4)


def test_channels_are_averaged() -> None:
    samples = sound(channels=MAX_CHANNELS)
    np.testing.assert_allclose(decode_audio(saved(samples, 24000), 24000, SETTINGS), samples.mean(axis=1), atol=1e-6)


def test_odd_lengths() -> None:
    for frames in (1, 2, 3, 65535, 65536, 65537, 131072):
        samples = sound(seconds=frames / 24000)[:frames]
        np.testing.assert_array_equal(decode_audio(saved(samples, 24000), 24000, SETTINGS), samples[:, 0])
        assert len(decode_audio(saved(samples, 24000), 16000, SETTINGS)) == -(-frames * 2 // 3)


@pytest.mark.parametrize(("file_format", "subtype"), FILES)
def test_the_length_limit(file_format: str, subtype: str) -> None:
    settings = {"max_audio_s": 1.5}
    decode_audio(saved(sound(seconds=1.3), 24000, file_format, subtype), 16000, MediaSettings.model_validate(settings))
    assert refused(saved(sound(seconds=1.7), 24000, file_format, subtype), **settings) == (
        "the audio is longer than 1.5 s"
    )


def test_silence_that_unfolds_is_refused_by_its_header() -> None:
    # Ten hours in a few hundred kilobytes.
    data = saved(np.zeros(10 * 3600 * 1000, np.float32), 1000, "FLAC", "PCM_16")
    assert len(data) < 2e6
    assert refused(data) == "the audio is longer than 300 s"


def test_a_header_that_lies_about_its_length() -> None:
    data = bytearray(saved(sound(), 24000, "FLAC", "PCM_16"))
    data[21] = data[21] & 0xF0
    for frames in (24000 * 60, 23999):
        data[22:26] = struct.pack(">I", frames)
        with contextlib.suppress(InvalidRequest):
            assert len(decode_audio(bytes(data), 24000, SETTINGS)) <= 24000
    data[22:26] = struct.pack(">I", 2**31)
    assert refused(bytes(data)) == "the audio is longer than 300 s"
    # A WAV that was written to a pipe does not know its length.
    wav = bytearray(saved(sound(), 24000, "WAV", "PCM_16"))
    at = wav.index(b"data") + 4
    wav[at : at + 4] = b"\xff" * 4
    assert len(decode_audio(bytes(wav), 24000, SETTINGS)) == 24000


def test_strange_headers_are_refused() -> None:
    assert refused(saved(sound(channels=9), 24000)) == "the audio has 9 channels; the limit is 8"
    for rate_hz in (1, 999, 192001, 2**31 - 1):
        message = refused(saved(sound(), rate_hz))
        assert message == f"the audio has {rate_hz} samples a second; allowed are 1000 to 192000"
    assert refused(saved(sound()[:0], 24000)) == "the audio has no samples"
    bad = sound()
    for value in (np.nan, np.inf):
        bad[5] = value
        assert refused(saved(bad, 24000)) == "the audio has samples that are not numbers"


def test_other_files_are_not_opened() -> None:
    samples = sound()
    for file_format in ("AU", "CAF", "HTK", "MAT5", "PAF", "SDS", "VOC", "W64", "NIST", "IRCAM"):
        assert "in no known format" in refused(saved(samples, 24000, file_format, "PCM_16")), file_format
    for data in (b"", b"\xff", b"hello", b"<html>", b"\x89PNG\r\n\x1a\n", b"\0\0\0\x20ftypM4A ", b"\x1aE\xdf\xa3webm"):
        assert refused(data) == "the audio is in no known format; it must be WAV, FLAC, Ogg, MP3 or AIFF"


@pytest.mark.parametrize(("file_format", "subtype"), FILES)
def test_a_file_that_is_cut_off_is_shorter_or_refused(file_format: str, subtype: str) -> None:
    data = saved(sound(), 24000, file_format, subtype)
    whole = decode_audio(data, 24000, SETTINGS)
    for length in (4, 12, 30, len(data) // 2):
        try:
            found = decode_audio(data[:length], 24000, SETTINGS)
        except InvalidRequest:
            continue
        assert file_format != "FLAC"
        assert 0 < len(found) < len(whole)


@pytest.mark.parametrize(("file_format", "subtype"), FILES)
def test_random_damage_is_audio_or_an_error_of_the_client(
    file_format: str, subtype: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = np.frombuffer(saved(sound(seconds=0.2), 24000, file_format, subtype), np.uint8)
    random = np.random.default_rng(0)
    refusals = 0
    for _ in range(100):
        damaged = data.copy()
        places = np.concatenate([random.integers(0, len(data), 3), random.integers(0, 100, 3)])
        damaged[places] = random.integers(0, 256, 6)
        try:
            found = decode_audio(damaged.tobytes(), 16000, SETTINGS)
        except InvalidRequest:
            refusals += 1
        else:
            assert np.isfinite(found).all()
            assert len(found) <= 300 * 16000
    assert refusals
    assert "Traceback" not in capfd.readouterr().err


def test_many_threads() -> None:
    files = [saved(sound(seed=i), 24000, *FILES[i]) for i in range(len(FILES))]
    alone = [decode_audio(data, 16000, SETTINGS) for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode_audio(data, 16000, SETTINGS), files * 4))
    for i, found in enumerate(together):
        np.testing.assert_array_equal(found, alone[i % len(files)])
