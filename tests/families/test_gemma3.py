"""Gemma 3 text against transformers on the same tiny random weights, in both runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lemni.errors import ModelLoadError
from tests.families import decoders

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LENGTHS = (1, 2, 7, 40, 13, 3)
CASES: dict[str, dict[str, Any]] = {
    "causal": {"sliding_window": 6},
    "both sides, even window": {"sliding_window": 6, "use_bidirectional_attention": True},
    "both sides, odd window": {"sliding_window": 7, "use_bidirectional_attention": True},
    "layers listed": {"layer_types": ["full_attention", "sliding_attention", "full_attention"], "sliding_window": 6},
    "biases": {"attention_bias": True, "sliding_window": 6},
    "scaled": {
        "sliding_window": 6,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
        },
    },
}


def _tiny(case: str, folder: Path) -> Any:
    sizes = {
        "vocab_size": decoders.VOCABULARY,
        "hidden_size": 24,
        "intermediate_size": 56,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "query_pre_attn_scalar": 20,
        "max_position_embeddings": 64,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    }
    config = transformers.Gemma3TextConfig(**{**sizes, **CASES[case]})
    return decoders.save(transformers.AutoModel.from_config(config), folder)


@pytest.mark.parametrize("case", CASES)
def test_hidden_states_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    model = _tiny(case, tmp_path)
    assert decoders.worst(tmp_path, model, decoders.sequences(*LENGTHS)) < decoders.TOLERANCE


@pytest.mark.parametrize("case", ["causal", "both sides, even window", "scaled"])
def test_configs_of_the_hub_mean_the_same(case: str, tmp_path: Path) -> None:
    """Older files: thetas by themselves, scaling for the full layers only, a pattern in place of the list."""
    model = _tiny(case, tmp_path)
    config = decoders.config_of(tmp_path)
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope["full_attention"].pop("rope_theta")
    config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    config["rope_scaling"] = rope["full_attention"] if len(rope["full_attention"]) > 1 else None
    config.pop("layer_types")
    config["sliding_window_pattern"] = 3
    assert decoders.worst(tmp_path, model, decoders.sequences(*LENGTHS), config) < decoders.TOLERANCE


def test_an_odd_window_in_the_file_is_halved_downwards(tmp_path: Path) -> None:
    model = _tiny("both sides, odd window", tmp_path)
    config = {**decoders.config_of(tmp_path), "sliding_window": 7}  # transformers itself writes 6 for 7
    assert decoders.worst(tmp_path, model, decoders.sequences(*LENGTHS), config) < decoders.TOLERANCE


@pytest.mark.parametrize("backend", decoders.BACKENDS)
def test_alone_equals_among_others(backend: str, tmp_path: Path) -> None:
    _tiny("both sides, even window", tmp_path)
    items = decoders.sequences(*LENGTHS)
    together = decoders.hidden(tmp_path, items, backend)
    alone = np.concatenate([decoders.hidden(tmp_path, [item], backend) for item in items])
    assert np.abs(together - alone).max() < 1e-5


def test_soft_capping_is_refused(tmp_path: Path) -> None:
    _tiny("causal", tmp_path)
    config = {**decoders.config_of(tmp_path), "attn_logit_softcapping": 50.0}
    with pytest.raises(ModelLoadError, match="attn_logit_softcapping"):
        decoders.hidden(tmp_path, decoders.sequences(3), "torch", config)
