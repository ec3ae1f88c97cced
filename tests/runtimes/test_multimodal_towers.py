"""CLIP, SigLIP, Chinese CLIP and CLAP against transformers, one input at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lemni.config import MediaSettings
from lemni.errors import ConfigError, ModelLoadError
from lemni.media.audio import decode_audio
from lemni.types import Audio, Image, Item
from tests import tiny_multimodal as tiny
from tests.runtimes.multimodal_models import TEXTS, TOLERANCE, Model, far, open_model, opened, pictures

torch = pytest.importorskip("torch")

SOUNDS = ((1.0, 48_000, 1), (0.3, 16_000, 2), (9.99, 48_000, 1))
"""Seconds, rate and channels."""


@pytest.fixture(scope="module", params=["clip", "siglip", "siglip2", "chinese_clip", "clap", "clap-fusion"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    name, _, fusion = request.param.partition("-")
    folder = tmp_path_factory.mktemp(name)
    if fusion:
        tiny.save_clap(folder, fusion=True)
    else:
        tiny.SAVERS[name](folder)
    return open_model(folder)


def _items(model: Model) -> list[Item]:
    """Texts, and images or sounds, in turns."""
    if "audio" in model.lemni.card.modalities:
        media: list[Item] = [Audio(tiny.sound(*sound[:2], channels=sound[2])) for sound in SOUNDS]
    else:
        media = list(pictures())
    mixed: list[Item] = []
    for place in range(max(len(TEXTS), len(media))):
        mixed += [*TEXTS[place : place + 1], *media[place : place + 1]]
    return mixed


def _expected(model: Model, item: Item) -> np.ndarray:
    processor, reference = model.processor, model.reference
    with torch.inference_mode():
        if isinstance(item, Image):
            found = reference.get_image_features(**processor(images=[opened(item)], return_tensors="pt"))
        elif isinstance(item, Audio):
            samples = decode_audio(item.data, 48_000, MediaSettings())
            features = processor.feature_extractor(samples, sampling_rate=48_000, return_tensors="pt")
            found = reference.get_audio_features(**features)
        else:
            fixed = model.lemni.card.architecture.startswith("Siglip")
            options: dict[str, Any] = {"padding": "max_length", "max_length": 16, "truncation": True} if fixed else {}
            found = reference.get_text_features(**processor(text=[item], return_tensors="pt", **options))
    return found.pooler_output[0].numpy()


def test_one_batch_equals_transformers_one_at_a_time(model: Model) -> None:
    items = _items(model)
    expected = [_expected(model, item) for item in items]
    assert far(model.rows(items), expected) < TOLERANCE
    assert far(model.rows(items[::-1]), expected[::-1]) < TOLERANCE


def test_a_row_is_the_same_alone(model: Model) -> None:
    items = _items(model)
    together = model.rows(items)
    alone = [row for item in items for row in model.rows([item])]
    assert far(together, alone) < TOLERANCE / 10


def test_the_card_says_what_it_takes(model: Model) -> None:
    card = model.lemni.card
    other = "audio" if card.architecture == "ClapModel" else "image"
    assert (card.runtime, card.normalized, card.dimensions) == ("multimodal", True, tiny.DIMENSIONS)
    assert card.tasks == ("embed", "score")
    assert card.modalities == ("text", other)
    assert card.max_length == {"Si": 16, "Ch": 52}.get(card.architecture[:2], 64)


@pytest.mark.parametrize("fusion", [False, True])
def test_long_sounds_are_cut_as_transformers_would_in_the_middle(
    fusion: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(tiny.save_clap(tmp_path, fusion=fusion))
    sound = Audio(tiny.sound(12.5))
    [row], [again] = model.rows([sound]), model.rows([sound])
    assert np.array_equal(row, again)
    monkeypatch.setattr(np.random, "randint", lambda start, stop: (stop - 1) // 2)
    monkeypatch.setattr(np.random, "choice", lambda places: places[len(places) // 2])
    assert far([row], [_expected(model, sound)]) < TOLERANCE
    # What is only cut says so; fusion looks at the whole.
    [[sequence]] = model.encode([sound])
    assert sequence.truncated is not fusion


def test_half_precision_is_computed_in_half_precision(tmp_path: Path) -> None:
    model = open_model(tiny.save_clip(tmp_path), dtype="bfloat16")
    items: list[Item] = ["a cat", *pictures()[:2]]
    rows = model.rows(items)
    assert all(row.dtype == np.float32 for row in rows)
    assert 1e-5 < far(rows, [_expected(model, item) for item in items]) < 0.1


def test_texts_cannot_be_longer_than_the_tower(tmp_path: Path) -> None:
    tiny.save_clip(tmp_path)
    with pytest.raises(ConfigError, match="64 tokens"):
        open_model(tmp_path, max_length=65)


def test_a_missing_weight_is_an_error(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tiny.save_clap(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["text_model.pooler.dense.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"text_model\.pooler\.dense\.weight"):
        open_model(tmp_path)
