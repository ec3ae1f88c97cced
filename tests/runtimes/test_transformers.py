"""The transformers runtime on architectures of many kinds, against one sequence at a time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lemni import hub
from lemni.errors import MissingExtra, ModelLoadError
from lemni.runtimes import open_backend
from lemni.runtimes.base import Backend, BackendOptions, Blueprint
from lemni.tasks.head import dense_head
from lemni.types import Sequence
from tests.families import decoders

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LENGTHS = (1, 2, 7, 40, 13, 3, 40, 11)
TOLERANCE = 1e-5
SMALL = {
    "vocab_size": decoders.VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
MODELS: dict[str, dict[str, Any]] = {
    "albert": {**SMALL, "embedding_size": 16},
    "deberta-v2": {
        **SMALL,
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 8,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
    },
    "eurobert": {**SMALL, "pad_token_id": 0, "num_key_value_heads": 2},
    "roberta": {**SMALL, "pad_token_id": 1},
    "gpt2": {"vocab_size": decoders.VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gemma2": {**SMALL, "num_key_value_heads": 2, "head_dim": 12, "sliding_window": 6},
    "t5": {"vocab_size": decoders.VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 56, "num_layers": 2, "num_heads": 4},
}


def _tiny(kind: str, folder: Path) -> Any:
    config = transformers.AutoConfig.for_model(kind, **MODELS[kind])
    architecture = transformers.T5EncoderModel if kind == "t5" else transformers.AutoModel
    model = architecture(config) if kind == "t5" else architecture.from_config(config)
    return decoders.save(model, folder)


def _items(kind: str) -> list[Sequence]:
    # No padding ids inside texts: RoBERTa derives positions from them.
    return [Sequence(np.where(item.ids < 2, 2, item.ids)) for item in decoders.sequences(*LENGTHS)]


def _open(folder: Path, **options: Any) -> Backend:
    spec = hub.describe(hub.ModelFiles("tiny", folder, None, "folder"))
    blueprint = Blueprint(spec, None, {**decoders.HIDDEN, "dense": dense_head(spec)})  # type: ignore[arg-type]
    return open_backend("transformers", blueprint, BackendOptions(threads=1, **options))


@pytest.mark.parametrize("kind", MODELS)
def test_a_batch_equals_one_sequence_at_a_time(kind: str, tmp_path: Path) -> None:
    model, items = _tiny(kind, tmp_path), _items(kind)
    runtime = _open(tmp_path).replica(0)
    expected = decoders.reference(model, items)
    assert np.abs(expected).max() > 0.1
    hidden = decoders.run(runtime, items)
    assert hidden.dtype == np.float32
    assert np.abs(hidden - expected).max() < TOLERANCE
    reversed_hidden = decoders.run(runtime, items[::-1])
    assert np.abs(reversed_hidden[: LENGTHS[-1]] - expected[-LENGTHS[-1] :]).max() < TOLERANCE


def test_pooling_and_dense_run_on_top(tmp_path: Path) -> None:
    model, items = _tiny("albert", tmp_path), _items("albert")
    spec = hub.describe(hub.ModelFiles("tiny", tmp_path, None, "folder"))
    rows = decoders.run(_open(tmp_path).replica(0), items, "dense")
    expected = [decoders.reference(model, [item]).mean(0) for item in items]
    assert spec.pooling == ("mean",)
    assert np.abs(rows - np.stack(expected)).max() < TOLERANCE


def test_segments_reach_the_model(tmp_path: Path) -> None:
    model = _tiny("albert", tmp_path)
    ids = decoders.sequences(5, 9)
    types = np.array([0, 0, 1, 1, 1], dtype=np.int32)
    rows = decoders.run(_open(tmp_path).replica(0), [Sequence(ids[0].ids, token_types=types), ids[1]])
    with torch.inference_mode():
        expected = model(
            torch.from_numpy(ids[0].ids.astype(np.int64))[None],
            token_type_ids=torch.from_numpy(types.astype(np.int64))[None],
        ).last_hidden_state[0]
    assert np.abs(rows[:5] - expected.numpy()).max() < TOLERANCE
    assert np.abs(rows[5:] - decoders.reference(model, ids[1:])).max() < TOLERANCE


@pytest.mark.parametrize(
    ("kind", "positions"), [("albert", 64), ("roberta", 62), ("gpt2", 64), ("t5", None), ("eurobert", None)]
)
def test_the_longest_sequence_is_known(kind: str, positions: int | None, tmp_path: Path) -> None:
    _tiny(kind, tmp_path)
    assert _open(tmp_path).max_positions == positions


def test_replicas_share_the_model_and_a_closed_one_refuses(tmp_path: Path) -> None:
    _tiny("albert", tmp_path)
    backend = _open(tmp_path, replicas=2)
    items = _items("albert")
    first, second = backend.replica(0), backend.replica(1)
    expected = decoders.run(first, items)
    first.close()
    first.close()
    with pytest.raises(RuntimeError, match="closed"):
        decoders.run(first, items)
    assert np.array_equal(decoders.run(second, items), expected)


def test_half_precision_is_computed_in_half_precision(tmp_path: Path) -> None:
    model, items = _tiny("albert", tmp_path), _items("albert")
    backend = _open(tmp_path, dtype="bfloat16")
    hidden = decoders.run(backend.replica(0), items)
    distance = np.abs(hidden - decoders.reference(model, items)).max()
    assert hidden.dtype == np.float32
    assert 1e-4 < distance < 0.3


def test_pickled_weights_need_trust(tmp_path: Path) -> None:
    model = _tiny("albert", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match="--trust-pickle"):
        _open(tmp_path)
    items = _items("albert")
    hidden = decoders.run(_open(tmp_path, trust_pickle=True).replica(0), items)
    assert np.abs(hidden - decoders.reference(model, items)).max() < TOLERANCE


def test_code_in_the_folder_needs_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    model = _tiny("albert", tmp_path)
    (tmp_path / "own.py").write_text(
        "from transformers import AlbertConfig, AlbertModel\n"
        "class OwnConfig(AlbertConfig):\n    model_type = 'own-kind'\n"
        "class OwnModel(AlbertModel):\n    config_class = OwnConfig\n"
    )
    config = (tmp_path / "config.json").read_text()
    own = '"model_type": "own-kind", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}'
    (tmp_path / "config.json").write_text(config.replace('"model_type": "albert"', own))
    with pytest.raises(ModelLoadError, match="trust_remote_code"):
        _open(tmp_path)
    items = _items("albert")
    hidden = decoders.run(_open(tmp_path, trust_remote_code=True).replica(0), items)
    assert np.abs(hidden - decoders.reference(model, items)).max() < TOLERANCE


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    _tiny("albert", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    gone = next(name for name in weights if "ffn.weight" in name)
    pooled = {name for name in weights if name.startswith("pooler.")}
    assert pooled
    save_file({n: w for n, w in weights.items() if n not in pooled}, tmp_path / "model.safetensors", {"format": "pt"})
    _open(tmp_path)  # a pooler is not needed
    save_file({n: w for n, w in weights.items() if n != gone}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelLoadError, match=gone):
        _open(tmp_path)


def test_an_unknown_architecture_is_an_error_of_the_model(tmp_path: Path) -> None:
    _tiny("albert", tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"albert"', '"never-heard-of"'))
    with pytest.raises(ModelLoadError, match="never-heard-of"):
        _open(tmp_path)


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_a_missing_package_names_the_extra(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tiny("albert", tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"'{package}'.*pip install 'lemni\[torch\]'"):
        _open(tmp_path)
