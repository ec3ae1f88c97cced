"""How weights are stored: old names, models below a head, half precision, shards; and what is refused, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from lemni.errors import ModelLoadError
from lemni.families import FAMILIES, family_class
from lemni.families.mpnet import buckets
from lemni.hub import ModelFiles
from tests.families.encoders import (
    BACKENDS,
    SIZES,
    TOLERANCE,
    Loaded,
    config_of,
    forward_of,
    rewrite,
    save,
    sequences,
    worst,
)
from tests.families.test_encoders import DISTILBERT, MODERNBERT

HEADED = {
    "bert": hf.BertConfig(**SIZES),
    "roberta": hf.RobertaConfig(**SIZES, pad_token_id=1),
    "xlm-roberta": hf.XLMRobertaConfig(**SIZES, pad_token_id=1),
    "camembert": hf.CamembertConfig(**SIZES, pad_token_id=1),
    "electra": hf.ElectraConfig(**SIZES, embedding_size=16),
    "albert": hf.AlbertConfig(**SIZES, embedding_size=16),
    "eurobert": hf.EuroBertConfig(**SIZES, pad_token_id=0),
    "distilbert": hf.DistilBertConfig(**DISTILBERT),
    "mpnet": hf.MPNetConfig(**SIZES),
    "modernbert": hf.ModernBertConfig(**MODERNBERT),
    "nomic_bert": hf.NomicBertConfig(**SIZES),
    "gte": hf.GteConfig(**SIZES),
}


@pytest.mark.parametrize("kind", HEADED)
def test_below_a_head(kind: str, tmp_path: Path) -> None:
    model = save(hf.AutoModelForMaskedLM.from_config(HEADED[kind]), tmp_path)
    base = getattr(model, model.base_model_prefix)
    assert worst(tmp_path, forward_of(base, types=False), sequences(1, 30, 7)) <= TOLERANCE


def test_old_names_of_norms(tmp_path: Path) -> None:
    model = save(hf.AutoModel.from_config(hf.BertConfig(**SIZES)), tmp_path)

    def old(name: str) -> str:
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    rewrite(tmp_path, lambda tensors: {f"bert.{old(name)}": tensor for name, tensor in tensors.items()})
    assert worst(tmp_path, forward_of(model, types=True), sequences(1, 30, 7)) <= TOLERANCE


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["bert", "mpnet", "modernbert"])
def test_half_precision_in_the_file_is_computed_in_float32(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    save(hf.AutoModel.from_config(HEADED[kind]), tmp_path)
    items = sequences(1, 30, 7)
    whole = Loaded(tmp_path, "torch")(items)
    rewrite(tmp_path, lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()})
    model = hf.AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert worst(tmp_path, forward_of(model, types=False), items) <= TOLERANCE
    assert np.abs(Loaded(tmp_path, "torch")(items) - whole).max() > TOLERANCE  # the file really holds less


def test_shards(tmp_path: Path) -> None:
    model = hf.AutoModel.from_config(hf.BertConfig(**SIZES)).eval()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert worst(tmp_path, forward_of(model, types=True), sequences(1, 30, 7, types=2)) <= TOLERANCE


def test_the_real_default_model(minilm: ModelFiles) -> None:
    model = hf.AutoModel.from_pretrained(minilm.path).eval()
    random = np.random.default_rng(0)
    items = sequences(1, 2, 7, 256, 31, types=2)
    for item in items:
        item.ids[:] = random.integers(1000, 30_000, len(item))
    assert worst(minilm.path, forward_of(model, types=True), items) <= TOLERANCE


def test_mpnet_s_buckets_are_those_of_transformers() -> None:
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    distances = np.arange(-600, 601)
    theirs = MPNetEncoder.relative_position_bucket(torch.from_numpy(distances)).numpy()
    np.testing.assert_array_equal(buckets(distances), theirs)


@pytest.mark.parametrize("where", ["embeddings.position_embeddings.weight", "encoder.relative_attention_bias.weight"])
def test_mpnet_s_positions_show(where: str, tmp_path: Path) -> None:
    """What its comparison rests on: positions or buckets that are off by one are far over the tolerance."""
    save(hf.AutoModel.from_config(hf.MPNetConfig(**SIZES)), tmp_path)
    items = sequences(150)
    right = Loaded(tmp_path, "torch")(items)
    rewrite(tmp_path, lambda tensors: {**tensors, where: tensors[where].roll(1, 0)})
    assert np.abs(Loaded(tmp_path, "torch")(items) - right).max() > 100 * TOLERANCE


# What is refused


def refused(folder: Path, config: dict[str, Any]) -> str:
    for backend in BACKENDS:
        with pytest.raises(ModelLoadError) as caught:
            Loaded(folder, backend, config)(sequences(2))
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("bert", {"position_embedding_type": "relative_key"}),
        ("bert", {"is_decoder": True}),
        ("xlm-roberta", {"position_embedding_type": "rotary"}),
        ("mpnet", {"relative_attention_num_buckets": 64}),
        ("modernbert", {"rope_scaling": {"type": "yarn", "factor": 2.0}}),
        ("modernbert", {"layer_types": ["full_attention", "chunked_attention", "full_attention"]}),
        ("gte", {"position_embedding_type": "absolute"}),
        ("gte", {"layer_norm_type": "rms_norm"}),
        ("gte", {"logn_attention_scale": True}),
        ("nomic_bert", {"n_embd": 32, "n_head": 4, "n_layer": 3, "num_experts": 8}),
        ("nomic_bert", {"n_embd": 32, "n_head": 4, "n_layer": 3, "prenorm": True}),
        ("nomic_bert", {"n_embd": 32, "n_head": 4, "n_layer": 3, "activation_function": "relu"}),
    ],
    ids=str,
)
def test_settings_that_are_not_supported(kind: str, change: dict[str, Any], tmp_path: Path) -> None:
    save(hf.AutoModel.from_config(HEADED[kind]), tmp_path)
    message = refused(tmp_path, {**config_of(tmp_path), **change})
    key = list(change)[-1]
    assert key in message
    assert "config.json is not supported" in message
    assert "--runtime transformers" in message


def test_a_feed_forward_type_that_jina_bert_does_not_have(tmp_path: Path) -> None:
    save(hf.AutoModel.from_config(HEADED["bert"]), tmp_path)
    change = {"position_embedding_type": "alibi", "feed_forward_type": "original"}
    assert "feed_forward_type 'original'" in refused(tmp_path, {**config_of(tmp_path), **change})


def test_an_unknown_activation(tmp_path: Path) -> None:
    save(hf.AutoModel.from_config(HEADED["bert"]), tmp_path)
    message = refused(tmp_path, {**config_of(tmp_path), "hidden_act": "wobble"})
    assert "'wobble'" in message
    assert "gelu_new" in message


def test_an_unknown_rope_type(tmp_path: Path) -> None:
    save(hf.AutoModel.from_config(HEADED["gte"]), tmp_path)
    message = refused(tmp_path, {**config_of(tmp_path), "rope_scaling": {"type": "spiral"}})
    assert "'spiral'" in message


@pytest.mark.parametrize("key", ["num_hidden_layers", "num_attention_heads"])
@pytest.mark.parametrize("kind", ["bert", "mpnet", "modernbert", "gte", "nomic_bert"])
def test_a_config_that_lacks_something(kind: str, key: str, tmp_path: Path) -> None:
    save(hf.AutoModel.from_config(HEADED[kind]), tmp_path)
    config = config_of(tmp_path)
    del config[key]
    assert f"config.json has no '{key}'" in refused(tmp_path, config)


def test_a_tensor_that_is_missing(tmp_path: Path) -> None:
    save(hf.AutoModel.from_config(HEADED["bert"]), tmp_path)
    name = "encoder.layer.1.output.dense.weight"
    rewrite(tmp_path, lambda tensors: {key: tensors[key] for key in tensors if key != name})
    message = refused(tmp_path, config_of(tmp_path))
    assert name in message
    assert "model.safetensors" in message


@pytest.mark.parametrize("kind", ["gte", "nomic_bert"])
def test_layers_by_names_that_no_layout_has(kind: str, tmp_path: Path) -> None:
    save(hf.AutoModel.from_config(HEADED[kind]), tmp_path)
    rewrite(tmp_path, lambda tensors: {name.replace("encoder.", "blocks."): t for name, t in tensors.items()})
    message = refused(tmp_path, config_of(tmp_path))
    assert "layers.0.self_attn.q_proj.weight" in message


def test_weights_of_another_architecture(tmp_path: Path) -> None:
    save(hf.AutoModel.from_config(HEADED["distilbert"]), tmp_path)
    rewrite(tmp_path, lambda tensors: {"other." + name: tensor for name, tensor in tensors.items()})
    assert "'distilbert.embeddings.word_embeddings.weight'" in refused(tmp_path, config_of(tmp_path))


def test_an_unknown_family() -> None:
    with pytest.raises(ModelLoadError, match=r"'t5' is none of .*bert, .*--runtime transformers"):
        family_class("t5")


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_row_of_the_table_can_be_imported(model_type: str) -> None:
    assert callable(family_class(model_type))


def test_jina_bert_is_told_by_its_config() -> None:
    assert family_class("bert").__name__ == "Bert"
    assert family_class("bert", {"position_embedding_type": "absolute"}).__name__ == "Bert"
    assert family_class("bert", {"position_embedding_type": "alibi"}).__name__ == "JinaBert"
