"""Texts, images and sounds in one request: scores, options, limits, errors that name the item; layouts of folders."""

from __future__ import annotations

import json
import math
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lemni
from lemni import hub
from lemni.config import MediaSettings
from lemni.errors import (
    ConfigError,
    InputTooLong,
    InvalidRequest,
    InvalidTokenIds,
    LemniError,
    MissingExtra,
    ModelLoadError,
)
from lemni.tasks.feature_memory import FeatureMemory
from lemni.types import Audio, Chunks, Image, Item, Mixed, Options, Pair
from tests import tiny_multimodal as tiny
from tests.runtimes.multimodal_models import TOLERANCE, Model, open_model, opened, pictures
from tests.tasks.tiny import save_bert

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(tiny.save_clip(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(tiny.save_clap(tmp_path_factory.mktemp("clap")))


@pytest.fixture(scope="module")
def colqwen(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tiny.save_colqwen2(tmp_path_factory.mktemp("colqwen"))
    return open_model(folder)


def test_vectors_have_unit_length_and_are_cut(clip: Model) -> None:
    items: list[Item] = ["a cat", *pictures()[:2]]
    whole = clip.result(items).vectors
    with torch.inference_mode():
        output = clip.reference(
            **clip.processor(text=["a cat"], images=[opened(one) for one in pictures()[:2]], return_tensors="pt")
        )
    assert np.abs(whole - torch.cat([output.text_embeds, output.image_embeds]).numpy()).max() < TOLERANCE
    cut = clip.result(items, Options(dimensions=5)).vectors
    assert np.abs(cut - whole[:, :5] / np.linalg.norm(whole[:, :5], axis=1, keepdims=True)).max() < TOLERANCE
    raw = clip.result(items, Options(normalize=False)).vectors
    assert np.abs(np.linalg.norm(raw, axis=1) - 1).min() > 0.01
    with pytest.raises(InvalidRequest, match="1 to 16"):
        clip.encode(items, Options(dimensions=17))


def test_score_is_the_cosine_across_modalities(clip: Model) -> None:
    first, second = pictures()[:2]
    vectors = clip.result(["a cat", first, second]).vectors
    pairs = [Pair("a cat", first), Pair(first, second), Pair("a cat", Mixed((second,)), symmetric=True)]
    scores = clip.result(pairs, task="score").scores
    cosines = [vectors[0] @ vectors[1], vectors[1] @ vectors[2], vectors[0] @ vectors[2]]
    assert np.abs(scores - cosines).max() < TOLERANCE


def test_score_is_maxsim_of_a_query_with_pages_and_texts(colqwen: Model) -> None:
    page = pictures()[1]
    scores = colqwen.result([Pair("a cat", page), Pair("a cat", "the cat sat")], task="score").scores
    processor = colqwen.processor
    with torch.inference_mode():
        query = colqwen.reference(**processor.process_queries(["a cat"])).embeddings
        image = colqwen.reference(**processor.process_images(images=[opened(page)])).embeddings
        text = colqwen.reference(**processor.tokenizer(["the cat sat"], return_tensors="pt")).embeddings
    expected = [float(processor.score_retrieval(query, one)[0, 0]) for one in (image, text)]
    assert np.abs(scores - expected).max() < 1e-4


def test_many_vectors_are_cut_row_by_row(colqwen: Model) -> None:
    items: list[Item] = ["a cat", pictures()[0]]
    whole = colqwen.result(items).multi_vectors
    for cut, rows in zip(colqwen.result(items, Options(dimensions=4)).multi_vectors, whole, strict=True):
        assert np.abs(cut - rows[:, :4] / np.linalg.norm(rows[:, :4], axis=1, keepdims=True)).max() < TOLERANCE
    with pytest.raises(InvalidRequest, match="1 to 16"):
        colqwen.encode(items, Options(dimensions=0))
    with pytest.raises(InvalidRequest, match="chunk"):
        colqwen.encode(items, Options(truncate="chunk"))


def test_long_texts_are_cut_or_refused(clip: Model, colqwen: Model) -> None:
    long = "the cat sat on the mat " * 200
    for model, limit in ((clip, 64), (colqwen, 256)):
        result = model.result(["short", long])
        assert result.truncated == (1,)
        assert result.token_counts[1] == limit
        [error] = model.encode([long], Options(truncate="error"))
        assert isinstance(error, InputTooLong)
        assert error.message.startswith("input[0] has more than")
    # A query that is cut keeps its augmentation tokens.
    [[cut]], [[short]] = colqwen.encode([long]), colqwen.encode(["a"])
    assert cut.ids[-11:].tolist() == short.ids[-11:].tolist()
    assert cut.ids[:10].tolist() == colqwen.processor.process_queries([long])["input_ids"][0, :10].tolist()


def test_prompts_and_sides(colqwen: Model) -> None:
    def ids(**options: Any) -> list[int]:
        [[sequence]] = colqwen.encode(["a cat"], Options(**options))
        return list(sequence.ids)

    assert ids() == ids(input_type="query") == ids(prompt_name="query") == ids(prompt="Query: ")
    assert ids(input_type="document") == ids(prompt_name="document")
    assert len(ids(prompt="")) == len(ids()) - len("Query: ")
    with pytest.raises(InvalidRequest, match="'query', 'document'"):
        colqwen.encode(["a"], Options(prompt_name="passage"))


def test_token_ids_are_taken_as_they_are(clip: Model, colqwen: Model) -> None:
    for model in (clip, colqwen):
        [[text]] = model.encode(["a cat"])
        [row], [same] = model.rows(["a cat"]), model.rows([text.ids.tolist()])
        assert np.array_equal(row, same)
        [wrong] = model.encode([[1, 100_000]])
        assert isinstance(wrong, InvalidTokenIds)


def test_a_bad_image_fails_alone(clip: Model, colqwen: Model) -> None:
    good = pictures()[0]
    for model in (clip, colqwen):
        outcomes = model.encode(["a", Image(b"no image"), good, Image(good.data[: len(good.data) // 2]), Image(b"")])
        failed = [isinstance(one, LemniError) for one in outcomes]
        assert failed == [False, True, False, True, True]
        for place in (1, 3, 4):
            assert type(outcomes[place]) is InvalidRequest
            assert outcomes[place].message.startswith(f"input[{place}]: the image is")


def test_a_bad_sound_fails_alone(clap: Model) -> None:
    sound = Audio(tiny.sound(0.5))
    bad, good = clap.encode([Audio(b"RIFF nothing"), sound])
    assert isinstance(bad, InvalidRequest)
    assert bad.message.startswith("input[0]: the audio is")
    assert len(good) == 1
    long, fits = clap.encode([Audio(tiny.sound(10.2, 8000)), sound], Options(truncate="error"))
    assert isinstance(long, InputTooLong)
    assert "10.2 s; this model takes at most 10 s" in long.message
    assert len(fits) == 1


def test_limits_of_the_settings_hold(tmp_path: Path) -> None:
    media = MediaSettings(max_image_megapixels=0.01)
    model = open_model(tiny.save_clip(tmp_path), media)
    small, large = model.encode([Image(tiny.picture(100, 100)), Image(tiny.picture(101, 100))])
    assert len(small) == 1
    assert "input[1]: the image has 101 x 100 pixels" in large.message


def test_an_image_with_more_tokens_than_the_limit_is_refused(tmp_path: Path) -> None:
    folder = tiny.save_colqwen2(tmp_path)
    model = open_model(folder, max_length=38)
    small, large = model.encode([Image(tiny.picture(56, 56)), Image(tiny.picture(280, 70))])
    assert len(small) == 1
    assert isinstance(large, InputTooLong)
    assert "at most 38" in large.message


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (Audio(b""), "takes no audio"),
        (Mixed(("a", Image(b""))), "not several together"),
        (Pair("a", "b"), "single inputs"),
        (Chunks(("a",)), "single inputs"),
    ],
)
def test_what_it_does_not_take_is_said(item: Item, message: str, clip: Model, colqwen: Model) -> None:
    for model in (clip, colqwen):
        with pytest.raises(InvalidRequest, match=message):
            model.encode([item])


def test_equal_images_are_one_work_and_different_ones_are_not(clip: Model) -> None:
    one, other = pictures()[:2]
    [first], [again], [second] = clip.encode([one, Image(bytes(bytearray(one.data))), other])
    assert first.key == again.key != second.key


def test_sizes_are_patches(clip: Model, colqwen: Model) -> None:
    [[image]] = clip.encode([pictures()[0]])
    assert len(image) == 16
    [[page]] = colqwen.encode([Image(tiny.picture(140, 84))])
    assert len(page) == math.prod(page.features.arrays["image_grid_thw"]) == 60


def test_threads_share_a_processor(colqwen: Model) -> None:
    images = pictures() * 6

    def encode(place: int) -> Any:
        [[page]], [[text]] = colqwen.encode([images[place]]), colqwen.encode([f"{place} cats"])
        return page.ids.tolist(), page.features.arrays["pixel_values"], text.ids.tolist()

    expected = [encode(place) for place in range(7)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(encode, range(len(images))))
    for place, (ids, pixels, _) in enumerate(found):
        assert ids == expected[place % 7][0]
        assert np.array_equal(pixels, expected[place % 7][1])
    assert [one[2] for one in found[:7]] == [one[2] for one in expected]


@pytest.mark.parametrize("save", [tiny.save_clip, tiny.save_colmodernvbert, tiny.save_clap])
def test_over_the_memory_for_features_rows_are_the_same(
    save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(save(tmp_path))
    is_clap = "audio" in model.lemni.card.modalities
    media = [Audio(tiny.sound(0.2, seed=seed)) for seed in range(3)] if is_clap else pictures()[:3]
    expected = model.rows(media)
    monkeypatch.setattr(sys.modules["lemni.tasks.multimodal"], "FeatureMemory", lambda: FeatureMemory(0))
    starved = open_model(tmp_path)
    [[first], *_] = starved.encode(media)
    assert not isinstance(first.features.arrays, dict)
    for row, same in zip(starved.rows(media), expected, strict=True):
        assert np.array_equal(row, same)


def test_memory_for_features_is_given_back() -> None:
    memory = FeatureMemory(100)

    def arrays() -> dict[str, np.ndarray]:
        return {"a": np.ones(10, np.float32), "b": np.ones(4, np.int64)}

    kept = memory.keep(arrays(), arrays)
    assert isinstance(kept, dict)
    assert memory.used_bytes == 72
    later = memory.keep(arrays(), arrays)
    assert not isinstance(later, dict)
    assert memory.used_bytes == 72
    assert (list(later), len(later), later["b"].sum()) == (["a", "b"], 2, 4)
    assert later["a"] is later["a"]
    del kept
    assert memory.used_bytes == 0
    assert isinstance(memory.keep(arrays(), arrays), dict)


def test_the_library_embeds_images(clip: Model) -> None:
    items: list[Item] = ["a cat", *pictures(), pictures()[0]]
    with lemni.load(str(clip.folder), device="cpu", threads=1, max_image_megapixels=1) as model:
        vectors = model.embed(items)
        with pytest.raises(InvalidRequest, match=r"input\[1\]: the image is"):
            model.embed(["a", Image(b"broken")])
    assert np.abs(vectors - clip.result(items).vectors).max() < TOLERANCE


def test_a_folder_of_sentence_transformers_is_recognised(tmp_path: Path, clip: Model) -> None:
    tiny.save_clip(tmp_path / "0_CLIPModel")
    modules = [{"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    spec = hub.describe(hub.ModelFiles("clip", tmp_path, None, "folder"))
    assert (spec.kind, spec.model_type) == ("multimodal", "clip")
    with lemni.load(str(tmp_path), device="cpu", threads=1) as model:
        vectors = model.embed(["a cat", pictures()[0]])
    assert np.abs(vectors - clip.result(["a cat", pictures()[0]]).vectors).max() < TOLERANCE


def test_without_sentencepiece_tokenizer_json_serves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "lemni")
    tiny.save_siglip(tmp_path)
    expected = open_model(tmp_path).encode(["A cat", "x" * 40])
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "tokenizer_class": "SiglipTokenizer"}))
    found = open_model(tmp_path).encode(["A cat", "x" * 40])
    assert "read from tokenizer.json" in caplog.text
    assert [one.ids.tolist() for [one] in found] == [one.ids.tolist() for [one] in expected]


@pytest.mark.parametrize(
    ("save", "module", "extra"), [("clip", "PIL", "images"), ("colpali", "PIL", "images"), ("clap", "soxr", "audio")]
)
def test_a_missing_package_is_named(
    save: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.SAVERS[save](tmp_path)
    found = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == module else found(name))
    with pytest.raises(MissingExtra, match=rf"lemni\[{extra}\]"):
        lemni.load(str(tmp_path), device="cpu")


def test_only_its_own_runtime_computes_it(clip: Model) -> None:
    with pytest.raises(ConfigError, match="runtime multimodal"):
        lemni.load(str(clip.folder), device="cpu", runtime="transformers")


def test_other_models_are_refused_by_the_runtime(tmp_path: Path) -> None:
    save_bert(tmp_path)
    with pytest.raises(ModelLoadError, match=r"'bert'.*clip"):
        lemni.load(str(tmp_path), device="cpu", runtime="multimodal")
