"""Llama, Mistral, Qwen2 and Qwen3 against transformers on the same tiny random weights, in both runtimes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lemni.errors import ModelLoadError
from tests.families import decoders

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LENGTHS = (1, 2, 7, 40, 13, 3)
SIZES = {
    "vocab_size": decoders.VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def _rope(kind: str, **values: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 500.0, **values}}


CASES: dict[str, dict[str, Any]] = {
    "qwen3": {"head_dim": 12},
    "qwen3 with biases": {"head_dim": 12, "attention_bias": True},
    "qwen3 both sides": {"head_dim": 12, "is_causal": False},
    "qwen3 windows listed": {
        "head_dim": 12,
        "use_sliding_window": True,
        "sliding_window": 5,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "qwen2": {},
    "qwen2 windows on last layers": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "qwen2 both sides of a window": {
        "use_sliding_window": True,
        "sliding_window": 5,
        "max_window_layers": 1,
        "is_causal": False,
    },
    "qwen2 yarn": _rope("yarn", factor=4.0, original_max_position_embeddings=16),
    "qwen2 yarn with mscale": _rope(
        "yarn",
        factor=4.0,
        original_max_position_embeddings=64,
        beta_slow=0.2,
        mscale=1.2,
        mscale_all_dim=0.6,
        truncate=False,
    ),
    "llama": {},
    "llama with every head its own": {"num_key_value_heads": 4, "head_dim": 12},
    "llama with biases": {"attention_bias": True, "mlp_bias": True, "head_dim": 12},
    "llama both sides": {"is_causal": False},
    "llama linear": _rope("linear", factor=4.0),
    "llama dynamic": _rope("dynamic", factor=4.0),
    "llama llama3": _rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32
    ),
    "mistral": {"sliding_window": 6, "head_dim": 12},
    "mistral of one token": {"sliding_window": 1},
    "mistral without window": {"sliding_window": None},
    "mistral both sides of a window": {"sliding_window": 6, "is_causal": False},
}


def _tiny(case: str, folder: Path, **changes: Any) -> Any:
    kind = case.split()[0]
    config = transformers.AutoConfig.for_model(kind, **{**SIZES, **CASES[case], **changes})
    return decoders.save(transformers.AutoModel.from_config(config), folder)


@pytest.mark.parametrize("case", CASES)
def test_hidden_states_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    model = _tiny(case, tmp_path)
    assert decoders.worst(tmp_path, model, decoders.sequences(*LENGTHS)) < decoders.TOLERANCE


@pytest.mark.parametrize("case", ["qwen3", "llama linear", "llama llama3", "qwen2 yarn", "mistral"])
def test_configs_of_the_hub_mean_the_same(case: str, tmp_path: Path) -> None:
    """Files of the hub say rope_theta and rope_scaling, and leave out what has a default."""
    model = _tiny(case, tmp_path)
    config = decoders.config_of(tmp_path)
    scaling = config.pop("rope_parameters")
    config["rope_theta"] = scaling.pop("rope_theta")
    scaling["type"] = scaling.pop("rope_type")
    config["rope_scaling"] = scaling if len(scaling) > 1 else None
    for key in ("layer_types", "use_sliding_window", "max_window_layers", "rms_norm_eps", "hidden_act"):
        config.pop(key, None)
    if case != "mistral":
        config.pop("sliding_window", None)
    assert decoders.worst(tmp_path, model, decoders.sequences(*LENGTHS), config) < decoders.TOLERANCE


@pytest.mark.parametrize("backend", decoders.BACKENDS)
@pytest.mark.parametrize("case", ["qwen3 windows listed", "mistral"])
def test_alone_equals_among_others(case: str, backend: str, tmp_path: Path) -> None:
    _tiny(case, tmp_path)
    items = decoders.sequences(*LENGTHS)
    together = decoders.hidden(tmp_path, items, backend)
    alone = np.concatenate([decoders.hidden(tmp_path, [item], backend) for item in items])
    assert np.abs(together - alone).max() < 1e-5


@pytest.mark.parametrize("architecture", ["AutoModelForCausalLM", "AutoModelForSequenceClassification"])
def test_weights_below_a_head_are_found(architecture: str, tmp_path: Path) -> None:
    config = transformers.Qwen3Config(**SIZES, head_dim=12, num_labels=2)
    whole = decoders.save(getattr(transformers, architecture).from_config(config), tmp_path)
    assert decoders.worst(tmp_path, whole.model, decoders.sequences(5, 9)) < decoders.TOLERANCE


def test_half_precision_files_are_widened(tmp_path: Path) -> None:
    _tiny("qwen3", tmp_path).to(torch.bfloat16).save_pretrained(tmp_path)
    model = transformers.AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert decoders.worst(tmp_path, model, decoders.sequences(5, 9)) < decoders.TOLERANCE


def test_far_positions(tmp_path: Path) -> None:
    model = _tiny("qwen3", tmp_path, max_position_embeddings=4096)
    assert decoders.worst(tmp_path, model, decoders.sequences(1500)) < decoders.TOLERANCE


def _refused(change: Callable[[dict[str, Any]], Any], folder: Path, message: str) -> None:
    _tiny("llama", folder)
    config = decoders.config_of(folder)
    change(config)
    with pytest.raises(ModelLoadError, match=message):
        decoders.hidden(folder, decoders.sequences(3), "torch", config)


def test_an_unknown_rope_is_named(tmp_path: Path) -> None:
    _refused(lambda c: c.update(rope_scaling={"rope_type": "longrope"}), tmp_path, "longrope.*linear")


def test_a_missing_rope_value_is_named(tmp_path: Path) -> None:
    _refused(lambda c: c.update(rope_scaling={"rope_type": "linear"}), tmp_path, "'linear' needs 'factor'")


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    _refused(lambda c: c.update(model_type="qwen3"), tmp_path, r"q_norm\.weight|self_attn")
    _refused(lambda c: c.update(num_hidden_layers=4), tmp_path, r"layers\.3")
