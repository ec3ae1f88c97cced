"""Stored int8 in models whose layers are named, joined or tied in other ways."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    BertConfig,
    BertForMaskedLM,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    XLMRobertaConfig,
    XLMRobertaModel,
)

import lemni
from lemni.config import HubSettings
from lemni.hub import TensorStore, describe, resolve
from lemni.hub.codes import Codes
from lemni.quantize.folder import write_model
from tests.tasks.tiny import save_bert

TEXTS = ["the cat sat", "a", "stocks fell on friday", "zzz " * 9]
SIZES: dict[str, Any] = {
    "vocab_size": 5000,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 70,
}
MODELS: dict[str, Any] = {
    "qwen3": lambda: Qwen3Model(Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=32)),
    "modernbert": lambda: ModernBertModel(ModernBertConfig(**SIZES, pad_token_id=0, reference_compile=False)),
    "xlm-roberta": lambda: XLMRobertaModel(XLMRobertaConfig(**{**SIZES, "max_position_embeddings": 4200})),
    "below a prefix": lambda: BertForMaskedLM(BertConfig(**SIZES)),
}


def save(name: str, folder: Path) -> Path:
    save_bert(folder)
    for file in ("model.safetensors", "config.json"):
        (folder / file).unlink()
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder


def reference(folder: Path) -> np.ndarray:
    """Mean of the hidden states as transformers computes them from the stored codes."""
    # By its class, as AutoTokenizer goes by the model's type.
    tokenizer, model = PreTrainedTokenizerFast.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        ids = [torch.tensor([tokenizer(text)["input_ids"]]) for text in TEXTS]
        return np.stack([model(input_ids=one).last_hidden_state[0].float().mean(0).numpy() for one in ids])


@pytest.mark.parametrize("name", MODELS)
def test_stored_int8_is_int8(name: str, tmp_path: Path) -> None:
    folder = save(name, tmp_path / "model")
    codes = write_model(describe(resolve(str(folder), HubSettings.model_validate({}))), "int8", tmp_path / "codes").path
    with lemni.load(str(codes), device="cpu") as stored, lemni.load(str(folder), device="cpu", dtype="int8") as made:
        assert (stored.card.dtype, made.card.dtype) == ("int8", "int8")
        np.testing.assert_array_equal(stored.embed(TEXTS), made.embed(TEXTS))
    with lemni.load(str(codes), device="cpu", dtype="float32", pooling="mean") as unfolded:
        found = unfolded.embed(TEXTS)
    np.testing.assert_allclose(found, reference(codes), atol=1e-5)
    with lemni.load(str(folder), device="cpu", pooling="mean") as exact:
        assert np.abs(exact.embed(TEXTS) - found).max() > 1e-5


def test_a_sparse_head_tied_to_the_words(tmp_path: Path) -> None:
    folder = save("below a prefix", tmp_path / "model")
    for path in ("modules.json", "1_Pooling"):
        shutil.rmtree(folder / path) if (folder / path).is_dir() else (folder / path).unlink(missing_ok=True)
    codes = write_model(describe(resolve(str(folder), HubSettings.model_validate({}))), "int8", tmp_path / "codes").path
    with (
        lemni.load(str(codes), device="cpu", pooling="splade") as stored,
        lemni.load(str(folder), device="cpu", pooling="splade", dtype="int8") as made,
    ):
        for one, two in zip(stored.sparse(TEXTS), made.sparse(TEXTS), strict=True):
            np.testing.assert_array_equal(one.indices, two.indices)
            np.testing.assert_array_equal(one.values, two.values)


def test_rows_of_codes_and_their_count(tmp_path: Path) -> None:
    folder = save("qwen3", tmp_path / "model")
    codes = write_model(describe(resolve(str(folder), HubSettings.model_validate({}))), "int8", tmp_path / "codes").path
    before, after = (TensorStore([one / "model.safetensors"]) for one in (folder, codes))
    name = "embed_tokens.weight"
    assert isinstance(after.weight(name), Codes)
    assert after.parameters() == before.parameters()
    np.testing.assert_array_equal(after.rows(name, [4999, 3]), after.numpy(name)[[4999, 3]])
    steps = after.numpy(f"{name}_scale")
    assert (np.abs(after.numpy(name) - before.numpy(name)) <= steps).all()
