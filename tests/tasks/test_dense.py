"""Every sentence-transformers setting that changes a vector, against sentence-transformers on the same folder."""

from __future__ import annotations

import json
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Normalize, Pooling

from lemni.config import HubSettings
from lemni.errors import ConfigError, InputTooLong, InvalidRequest, InvalidTokenIds, LemniError
from lemni.hub import describe, resolve
from lemni.tasks.model import LoadedModel
from lemni.types import Item, Options, Request, Sequence
from tests.tasks.tiny import TEXTS, load, request, run, sentence_model, tokenize

MODES = ["cls", "mean", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens"]


def embed(model: LoadedModel, items: Seq[Item], **options: Any) -> NDArray[np.float32]:
    return run(model, items, **options).vectors


def tokenized(model: LoadedModel, items: Seq[Item], **options: Any) -> list[Sequence | LemniError]:
    """The one sequence, or the error, of each item."""
    found: list[Sequence | LemniError] = []
    for outcome in tokenize(model, items, **options):
        if isinstance(outcome, LemniError):
            found.append(outcome)
        else:
            found += outcome
    assert len(found) == len(items)
    return found


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
@pytest.mark.parametrize("mode", MODES)
def test_pooling_modes(tmp_path: Path, mode: str, runtime: str) -> None:
    reference = sentence_model(tmp_path, [Pooling(32, pooling_mode=mode)])
    ours = embed(load(tmp_path, runtime=runtime), TEXTS)
    np.testing.assert_allclose(ours, reference.encode(TEXTS), atol=1e-5)


def test_several_pooling_modes_are_concatenated(tmp_path: Path) -> None:
    reference = sentence_model(tmp_path, [Pooling(32, pooling_mode=["mean", "cls", "max"]), Normalize()])
    model = load(tmp_path)
    assert model.card.dimensions == 96
    np.testing.assert_allclose(embed(model, TEXTS), reference.encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize("mode", ["mean", "weightedmean", "max", "mean_sqrt_len_tokens"])
@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_pooling_without_the_prompt(tmp_path: Path, mode: str, runtime: str) -> None:
    prompts = {"query": "find this: ", "document": "doc: "}
    pooling = Pooling(32, pooling_mode=mode, include_prompt=False)
    reference = sentence_model(tmp_path, [pooling], prompts=prompts)
    ours = embed(load(tmp_path, runtime=runtime), TEXTS, prompt_name="query")
    np.testing.assert_allclose(ours, reference.encode(TEXTS, prompt_name="query"), atol=1e-5)
    assert np.abs(ours - embed(load(tmp_path, runtime=runtime), TEXTS)).max() > 1e-2


@pytest.mark.parametrize(
    "activation", [torch.nn.Tanh(), torch.nn.Identity(), torch.nn.GELU(), torch.nn.ReLU(), torch.nn.SiLU()]
)
@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_dense_modules(tmp_path: Path, activation: torch.nn.Module, runtime: str) -> None:
    torch.manual_seed(1)
    modules = [
        Pooling(32),
        Dense(32, 48, activation_function=activation),
        Dense(48, 16, bias=False, activation_function=torch.nn.Identity()),
        Dense(16, 16, activation_function=activation, use_residual=True),
        Dense(16, 24, activation_function=activation, use_residual=True),
        Normalize(),
    ]
    reference = sentence_model(tmp_path, modules)
    np.testing.assert_allclose(embed(load(tmp_path, runtime=runtime), TEXTS), reference.encode(TEXTS), atol=1e-5)


def test_prompts_by_name_by_text_and_by_default(tmp_path: Path) -> None:
    prompts = {"query": "find: ", "document": "doc: "}
    reference = sentence_model(tmp_path, [Pooling(32)], prompts=prompts, default_prompt_name="document")
    model = load(tmp_path)
    np.testing.assert_allclose(embed(model, TEXTS), reference.encode(TEXTS), atol=1e-5)
    np.testing.assert_allclose(
        embed(model, TEXTS, prompt_name="query"), reference.encode(TEXTS, prompt_name="query"), atol=1e-5
    )
    np.testing.assert_allclose(embed(model, TEXTS, prompt="xyz "), reference.encode(TEXTS, prompt="xyz "), atol=1e-5)
    np.testing.assert_allclose(embed(model, TEXTS, prompt=""), reference.encode(TEXTS, prompt=""), atol=1e-5)
    np.testing.assert_allclose(
        embed(load(tmp_path, prompt_name="query"), TEXTS), reference.encode(TEXTS, prompt_name="query"), atol=1e-5
    )


def test_an_unknown_prompt_names_those_that_exist(tmp_path: Path) -> None:
    sentence_model(tmp_path, [Pooling(32)], prompts={"query": "q: "})
    with pytest.raises(InvalidRequest, match=r"'passage'.*'query'"):
        load(tmp_path).validate(request([], prompt_name="passage"))


@pytest.mark.parametrize("side", ["left", "right"])
def test_truncation_side_of_the_model(tmp_path: Path, side: str) -> None:
    reference = sentence_model(tmp_path, [Pooling(32)], max_length=12, tokenizer={"truncation_side": side})
    model = load(tmp_path)
    np.testing.assert_allclose(embed(model, TEXTS), reference.encode(TEXTS), atol=1e-5)


def test_truncation_by_request_says_so_or_refuses(tmp_path: Path) -> None:
    sentence_model(tmp_path, [Pooling(32)], max_length=6)
    model = load(tmp_path)
    left, right = (tokenized(model, ["abcdefgh"], truncate=side)[0] for side in ("left", "right"))
    assert isinstance(left, Sequence)
    assert isinstance(right, Sequence)
    assert left.truncated
    assert right.truncated
    assert model.tokenizer is not None
    letters = model.tokenizer._plain
    assert letters.decode(left.ids.tolist()) == "##e ##f ##g ##h"
    assert letters.decode(right.ids.tolist()) == "a ##b ##c ##d"
    asked = Request(["-", "a", "abcdefgh"], Options(truncate="error"), first_item=3)
    fine, refused = model.tokenize(asked, 1, 3)
    assert isinstance(fine, list)
    assert isinstance(refused, InputTooLong)
    assert refused.message.startswith("input[5] has 10 tokens, but this model takes at most 6.")
    [lone] = model.tokenize(Request(["abcdefgh"], Options(truncate="error"), field="text", lone=True), 0, 1)
    assert isinstance(lone, InputTooLong)
    assert lone.message.startswith("text has 10 tokens")
    [fits] = tokenized(model, ["abcd"])
    assert isinstance(fits, Sequence)
    assert not fits.truncated


def test_lower_casing(tmp_path: Path) -> None:
    sentence_model(tmp_path, [Pooling(32)])
    settings = tmp_path / "model" / "sentence_bert_config.json"
    settings.write_text(json.dumps({"max_seq_length": 24, "do_lower_case": True}))
    reference = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    model = load(tmp_path)
    assert describe(resolve(str(tmp_path / "model"), HubSettings(offline=True))).lower_case
    np.testing.assert_allclose(embed(model, TEXTS), reference.encode(TEXTS), atol=1e-5)
    np.testing.assert_array_equal(embed(model, ["ABC"]), embed(model, ["abc"]))


def test_dimensions_are_cut_and_normalised_again(tmp_path: Path) -> None:
    reference = sentence_model(tmp_path, [Pooling(32), Normalize()])
    model = load(tmp_path)
    cut = reference.encode(TEXTS)[:, :8]
    ours = embed(model, TEXTS, dimensions=8)
    assert ours.flags.c_contiguous
    np.testing.assert_allclose(ours, cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_array_equal(embed(model, TEXTS, dimensions=32), embed(model, TEXTS))
    for wrong in (0, -1, 33):
        with pytest.raises(InvalidRequest, match="1 to 32"):
            model.validate(request([], dimensions=wrong))


def test_normalize_by_request(tmp_path: Path) -> None:
    reference = sentence_model(tmp_path, [Pooling(32)])
    model = load(tmp_path)
    raw, unit = reference.encode(TEXTS), reference.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(embed(model, TEXTS), raw, atol=1e-5)
    np.testing.assert_allclose(embed(model, TEXTS, normalize=True), unit, atol=1e-5)


def test_truncate_dim_of_the_model(tmp_path: Path) -> None:
    reference = sentence_model(tmp_path, [Pooling(32)], truncate_dim=8)
    model = load(tmp_path)
    assert model.card.dimensions == 8
    np.testing.assert_allclose(embed(model, TEXTS), reference.encode(TEXTS), atol=1e-5)


def test_truncate_dim_of_a_normalising_model_leaves_short_vectors(tmp_path: Path) -> None:
    reference = sentence_model(tmp_path, [Pooling(32), Normalize()], truncate_dim=8)
    ours = embed(load(tmp_path), TEXTS)
    np.testing.assert_allclose(ours, reference.encode(TEXTS), atol=1e-5)
    assert np.linalg.norm(ours, axis=1).max() < 0.95
    again = embed(load(tmp_path), TEXTS, dimensions=8)
    np.testing.assert_allclose(np.linalg.norm(again, axis=1), 1, atol=1e-5)


def test_dimensions_normalise_whatever_their_number(tmp_path: Path) -> None:
    reference = sentence_model(tmp_path, [Pooling(32)])
    model, raw = load(tmp_path), reference.encode(TEXTS)
    for size in (8, 31, 32):
        cut = raw[:, :size]
        unit = cut / np.linalg.norm(cut, axis=1, keepdims=True)
        np.testing.assert_allclose(embed(model, TEXTS, dimensions=size), unit, atol=1e-5)
        np.testing.assert_allclose(embed(model, TEXTS, dimensions=size, normalize=False), cut, atol=1e-5)


def test_token_ids_beyond_64_bits_are_out_of_the_vocabulary(tmp_path: Path) -> None:
    sentence_model(tmp_path, [Pooling(32)])
    for wrong in ([2**70], [-1, 2**63], [5, 2**63], [2**64 - 1]):
        [error] = tokenized(load(tmp_path), [wrong])
        assert isinstance(error, InvalidTokenIds)
        assert "this model's vocabulary is 0.." in error.message


def test_token_ids_equal_their_text(tmp_path: Path) -> None:
    reference = sentence_model(tmp_path, [Pooling(32)])
    ids = [reference.tokenizer(text)["input_ids"] for text in TEXTS]
    np.testing.assert_allclose(embed(load(tmp_path), ids), reference.encode(TEXTS), atol=1e-5)


def test_foreign_token_ids_name_the_remedy(tmp_path: Path) -> None:
    sentence_model(tmp_path, [Pooling(32)])
    model = load(tmp_path)
    given: list[Any] = [[2, 5, 3], [9906, 1917], [-1], [1.5], []]
    good, foreign, negative, fraction, empty = tokenized(model, given)
    assert isinstance(good, Sequence)
    assert isinstance(foreign, InvalidTokenIds)
    assert "9906" in foreign.message
    assert "check_embedding_ctx_length=False" in foreign.message
    for error in (negative, fraction, empty):
        assert isinstance(error, InvalidTokenIds)


def test_long_token_ids_keep_their_special_tokens(tmp_path: Path) -> None:
    sentence_model(tmp_path, [Pooling(32)], max_length=5)
    model = load(tmp_path)
    cut = {
        side: tokenized(model, [[2, 10, 11, 12, 13, 14, 3]], truncate=side)[0] for side in ("left", "right", "error")
    }
    assert isinstance(cut["error"], InputTooLong)
    assert isinstance(cut["left"], Sequence)
    assert isinstance(cut["right"], Sequence)
    assert cut["left"].ids.tolist() == [2, 12, 13, 14, 3]
    assert cut["right"].ids.tolist() == [2, 10, 11, 12, 3]
    assert cut["right"].truncated


def test_max_length_beyond_the_positions_is_refused(tmp_path: Path) -> None:
    sentence_model(tmp_path, [Pooling(32)])
    assert load(tmp_path, max_length=64).card.max_length == 64
    with pytest.raises(ConfigError, match=r"65.*64 tokens"):
        load(tmp_path, max_length=65)


def test_pooling_override(tmp_path: Path) -> None:
    reference = sentence_model(tmp_path, [Pooling(32, pooling_mode="cls")])
    assert reference[1].pooling_mode == "cls"
    mean = sentence_model(tmp_path / "mean", [Pooling(32, pooling_mode="mean")])
    np.testing.assert_allclose(embed(load(tmp_path, pooling="mean"), TEXTS), mean.encode(TEXTS), atol=1e-5)


def test_estimates_count_the_prompt(tmp_path: Path) -> None:
    sentence_model(tmp_path, [Pooling(32)])
    model = load(tmp_path)
    assert model.estimate_tokens("a", request([], prompt="")) == model.estimate_tokens("a", request([])) == 2
    assert model.estimate_tokens("a", request([], prompt="cat " * 10)) == 12
    assert model.estimate_tokens([5, 6, 7], request([], prompt="cat " * 10)) == 3  # token ids take no prompt


def test_no_room_for_a_token_is_refused_at_once(tmp_path: Path) -> None:
    sentence_model(tmp_path, [Pooling(32)])
    for wrong in (1, 2):
        with pytest.raises(ConfigError, match=rf"max_length is {wrong},.* 2 special tokens .* at least 3"):
            load(tmp_path, max_length=wrong)
    [cut] = tokenized(load(tmp_path, max_length=3), ["abc"])
    assert isinstance(cut, Sequence)
    assert cut.ids.tolist() == [2, 4, 3]


@pytest.mark.parametrize("padding", ["[PAD]", "[UNK]", None])
def test_an_empty_text_has_a_vector_without_special_tokens_too(tmp_path: Path, padding: str | None) -> None:
    sentence_model(tmp_path, [Pooling(32)])
    file = next((tmp_path / "model").rglob("tokenizer.json"))
    file.write_text(json.dumps({**json.loads(file.read_text()), "post_processor": None}))
    settings = file.with_name("tokenizer_config.json")
    kept = {key: value for key, value in json.loads(settings.read_text()).items() if not key.endswith("_token")}
    settings.write_text(json.dumps(kept if padding is None else {**kept, "pad_token": padding}))
    model = load(tmp_path)
    [empty] = tokenized(model, [""])
    assert isinstance(empty, Sequence)
    assert empty.ids.tolist() == [1 if padding == "[UNK]" else 0]
    assert np.isfinite(embed(model, ["", "a"])).all()
