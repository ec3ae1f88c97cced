"""Encoders as the hub has them: layouts and spellings of config.json that transformers does not write itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import save_file

from lemni.families.jina_bert import slopes
from tests.families.encoders import (
    BACKENDS,
    SIZES,
    TOLERANCE,
    Forward,
    Loaded,
    config_of,
    forward_of,
    rewrite,
    save,
    sequences,
    worst,
)
from tests.families.references import (
    Tensors,
    alibi_slopes,
    jina_bert,
    jina_shapes,
    nomic_bert,
    nomic_shapes,
    ntk_frequencies,
    random_tensors,
)

JINA = {
    "model_type": "bert",
    "position_embedding_type": "alibi",
    "feed_forward_type": "geglu",
    "hidden_size": 48,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 200,
}
NOMIC = {
    "model_type": "nomic_bert",
    "n_embd": 48,
    "n_head": 4,
    "n_layer": 3,
    "n_inner": 40,
    "n_positions": 256,
    "max_trained_positions": 200,
    "rotary_scaling_factor": None,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "activation_function": "swiglu",
    "layer_norm_epsilon": 1e-12,
    "prenorm": False,
}


def write(folder: Path, config: dict[str, Any], tensors: Tensors) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")


def one_by_one(reference: Any, config: dict[str, Any], tensors: Tensors) -> Forward:
    return lambda ids, types: reference(config, tensors, ids[0], types[0])[None]


def check(folder: Path, forward: Forward, config: dict[str, Any] | None = None) -> None:
    """Equal to the reference at odd lengths, and alone as among others."""
    items = sequences(1, 2, 7, 190, 64, 31, types=2)
    assert worst(folder, forward, items, config) <= TOLERANCE
    for backend in BACKENDS:
        model = Loaded(folder, backend, config)
        together = model(items)[3:10]
        assert np.abs(together - model([items[2]])).max() <= 1e-5


@pytest.mark.parametrize("code", [False, True], ids=["v2", "code"])
@pytest.mark.parametrize(
    "change", [{}, {"num_attention_heads": 6}, {"feed_forward_type": "reglu", "layer_norm_eps": 1e-3}]
)
def test_jina_bert(code: bool, change: dict[str, Any], tmp_path: Path) -> None:
    config = {**JINA, **change}
    tensors = random_tensors(jina_shapes(3, code=code))
    write(tmp_path, config, tensors)
    check(tmp_path, one_by_one(jina_bert, config, tensors))


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 6, 8, 12, 16, 20])
def test_alibi_slopes(heads: int) -> None:
    np.testing.assert_allclose(slopes(heads), alibi_slopes(heads), rtol=1e-6)


def test_jina_bert_below_a_head(tmp_path: Path) -> None:
    tensors = random_tensors(jina_shapes(3, code=False))
    write(tmp_path, JINA, {f"bert.{name}": tensor for name, tensor in tensors.items()})
    check(tmp_path, one_by_one(jina_bert, JINA, tensors))


@pytest.mark.parametrize(
    ("change", "bias"),
    [
        ({}, False),
        ({"rotary_emb_fraction": 0.5, "rotary_emb_base": 50, "activation_function": "geglu"}, True),
        ({"activation_function": "glu", "layer_norm_epsilon": 1e-3}, True),
        ({"activation_function": "gelu"}, True),
        ({"activation_function": "gelu", "rotary_emb_fraction": 0.0}, False),
    ],
)
def test_nomic_bert_in_its_original_form(change: dict[str, Any], bias: bool, tmp_path: Path) -> None:
    config = {**NOMIC, **change}
    tensors = random_tensors(nomic_shapes(3, bias=bias, gated=config["activation_function"] != "gelu"))
    write(tmp_path, config, tensors)
    check(tmp_path, one_by_one(nomic_bert, config, tensors))


def test_nomic_bert_ends_where_its_positions_would_depend_on_the_batch(tmp_path: Path) -> None:
    write(tmp_path, NOMIC, random_tensors(nomic_shapes(3, bias=False, gated=True)))
    assert Loaded(tmp_path, "torch").max_positions == 256
    assert Loaded(tmp_path, "torch", {**NOMIC, "rotary_scaling_factor": 2.0}).max_positions == 200


def native_names(folder: Path, model: Any) -> None:
    """Weights by the names of transformers' own classes, which it turns into the original ones when it saves."""
    path = folder / "model.safetensors"
    path.unlink()
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)


@pytest.mark.parametrize("kind", ["nomic_bert", "gte"])
def test_both_layouts_of_the_weights(kind: str, tmp_path: Path) -> None:
    config = hf.NomicBertConfig(**SIZES) if kind == "nomic_bert" else hf.GteConfig(**SIZES, type_vocab_size=2)
    model = save(hf.AutoModel.from_config(config), tmp_path)
    items = sequences(1, 40, 3, types=2)
    original = [Loaded(tmp_path, backend)(items) for backend in BACKENDS]
    native_names(tmp_path, model)
    for before, backend in zip(original, BACKENDS, strict=True):
        np.testing.assert_array_equal(Loaded(tmp_path, backend)(items), before)


def test_nomic_bert_with_the_hub_s_own_config(tmp_path: Path) -> None:
    # The same weights, with what nomic-ai/nomic-embed-text-v1.5 says in its config.json.
    model = save(hf.AutoModel.from_config(hf.NomicBertConfig(**SIZES)), tmp_path)
    config = {**NOMIC, "n_embd": 32, "n_inner": 48, "n_positions": 160}
    check_config(tmp_path, model, config, types=2)


def check_config(folder: Path, model: Any, config: dict[str, Any], types: int = 1) -> None:
    items = sequences(1, 2, 7, 150, 33, types=types)
    assert worst(folder, forward_of(model, types=types > 1), items, config) <= TOLERANCE


GTE = {
    "model_type": "new",
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "intermediate_size": 48,
    "hidden_act": "gelu",
    "max_position_embeddings": 160,
    "position_embedding_type": "rope",
    "layer_norm_type": "layer_norm",
    "layer_norm_eps": 1e-12,
    "pack_qkv": True,
    "logn_attention_scale": False,
    "logn_attention_clip1": False,
    "type_vocab_size": 0,
}


def gte(theta: float, folder: Path) -> Any:
    rope = {"rope_type": "default", "rope_theta": theta}
    config = hf.GteConfig(**{**SIZES, "type_vocab_size": 0}, rope_parameters=rope)
    return save(hf.AutoModel.from_config(config), folder)


@pytest.mark.parametrize(("spelled", "theta"), [({"rope_theta": 500.0, "rope_scaling": None}, 500.0), ({}, 10_000.0)])
def test_gte_as_alibaba_has_it(spelled: dict[str, Any], theta: float, tmp_path: Path) -> None:
    check_config(tmp_path, gte(theta, tmp_path), {**GTE, **spelled})


def test_gte_as_snowflake_has_it(tmp_path: Path) -> None:
    # Arctic 2: model type "gte", weights and config of "new".
    model = gte(160_000.0, tmp_path)
    check_config(tmp_path, model, {**GTE, "model_type": "gte", "rope_theta": 160_000, "rope_scaling": None})
    check_config(tmp_path, model, {**GTE, "model_type": "gte"})


@pytest.mark.parametrize("scaling", [{"factor": 2.0}, {"factor": 8.0}, {"factor": 2.0, "mixed_b": 0.625}])
def test_gte_with_ntk_scaling(scaling: dict[str, float], tmp_path: Path) -> None:
    model = gte(500.0, tmp_path)
    config = {**GTE, "rope_theta": 500.0, "rope_scaling": {"type": "ntk", **scaling}}
    plain = model.rotary_emb.inv_freq.clone()
    scaled = ntk_frequencies(8, 500.0, scaling["factor"], scaling.get("mixed_b"))
    assert not torch.allclose(plain, scaled, rtol=0.01)
    model.rotary_emb.inv_freq = scaled
    check_config(tmp_path, model, config)


def test_gte_with_query_key_and_value_apart(tmp_path: Path) -> None:
    model = gte(500.0, tmp_path)

    def apart(tensors: Tensors) -> Tensors:
        split = {}
        for name, tensor in tensors.items():
            thirds = tensor.chunk(3) if "qkv_proj" in name else [tensor]
            letters = "qkv" if "qkv_proj" in name else [""]
            for letter, third in zip(letters, thirds, strict=True):
                split["new." + name.replace("qkv_proj", f"{letter}_proj")] = third
        return split

    rewrite(tmp_path, apart)
    check_config(tmp_path, model, {**GTE, "rope_theta": 500.0, "pack_qkv": False})


MODERNBERT = {
    "model_type": "modernbert",
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "intermediate_size": 48,
    "hidden_activation": "gelu",
    "max_position_embeddings": 160,
    "norm_eps": 1e-5,
    "norm_bias": False,
    "position_embedding_type": "absolute",
    "global_attn_every_n_layers": 3,
    "local_attention": 16,
}


def modernbert(everywhere: float, nearby: float, folder: Path, **changes: Any) -> Any:
    rope = {
        "full_attention": {"rope_type": "default", "rope_theta": everywhere},
        "sliding_attention": {"rope_type": "default", "rope_theta": nearby},
    }
    tokens = {f"{name}_token_id": n for n, name in enumerate(("pad", "cls", "sep", "bos", "eos"))}
    sizes = {**SIZES, "num_hidden_layers": 4, "local_attention": 16, **tokens, **changes}
    return save(hf.AutoModel.from_config(hf.ModernBertConfig(**sizes, rope_parameters=rope)), folder)


@pytest.mark.parametrize(
    ("spelled", "everywhere", "nearby"),
    [
        ({"global_rope_theta": 200.0, "local_rope_theta": 30.0}, 200.0, 30.0),
        ({"global_rope_theta": 200.0, "local_rope_theta": None}, 200.0, 200.0),
        ({}, 160_000.0, 10_000.0),
    ],
)
def test_modernbert_as_the_hub_has_it(
    spelled: dict[str, Any], everywhere: float, nearby: float, tmp_path: Path
) -> None:
    check_config(tmp_path, modernbert(everywhere, nearby, tmp_path), {**MODERNBERT, **spelled})


def test_modernbert_with_its_own_order_of_layers(tmp_path: Path) -> None:
    kinds = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]
    model = modernbert(200.0, 30.0, tmp_path, layer_types=kinds)
    check_config(tmp_path, model, config_of(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"local_attention": 14},
        {"local_attention": 18},
        {"global_attn_every_n_layers": 2},
        {"global_rope_theta": 201.0},
        {"local_rope_theta": 31.0},
        {"norm_eps": 0.1},
    ],
)
def test_modernbert_s_settings_show(change: dict[str, Any], tmp_path: Path) -> None:
    """What the comparisons above rest on: a wrong window, theta or order of layers is far over their tolerance."""
    modernbert(200.0, 30.0, tmp_path)
    config = {**MODERNBERT, "global_rope_theta": 200.0, "local_rope_theta": 30.0}
    items = sequences(120)
    right, wrong = (Loaded(tmp_path, "torch", {**config, **extra})(items) for extra in ({}, change))
    assert np.abs(right - wrong).max() > 100 * TOLERANCE
