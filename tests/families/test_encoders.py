"""Encoder families against transformers on the same tiny random weights, in both runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import transformers as hf

from tests.families.encoders import (
    BACKENDS,
    SIZES,
    TOLERANCE,
    Forward,
    Loaded,
    config_of,
    expected,
    forward_of,
    save,
    sequences,
)

LONGEST = 150
DISTILBERT = {
    "vocab_size": 99,
    "dim": 32,
    "n_layers": 3,
    "n_heads": 4,
    "hidden_dim": 48,
    "max_position_embeddings": 160,
}
THETA_50 = {"rope_type": "default", "rope_theta": 50.0}
MODERNBERT = {
    **SIZES,
    "global_attn_every_n_layers": 2,
    "local_attention": 8,
    "pad_token_id": 0,
    "cls_token_id": 1,
    "sep_token_id": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


class Case(NamedTuple):
    config: Any
    types: int = 1  # token types that the family has

    def model(self) -> Any:
        return hf.AutoModel.from_config(self.config)


CASES = {
    "bert": Case(hf.BertConfig(**SIZES), types=2),
    "bert-relu": Case(hf.BertConfig(**SIZES, hidden_act="relu", layer_norm_eps=1e-3), types=2),
    "roberta": Case(hf.RobertaConfig(**SIZES, pad_token_id=1)),
    "roberta-pad-0": Case(hf.RobertaConfig(**SIZES, pad_token_id=0)),
    "xlm-roberta": Case(hf.XLMRobertaConfig(**SIZES, pad_token_id=1)),
    "camembert": Case(hf.CamembertConfig(**SIZES, pad_token_id=1)),
    "electra": Case(hf.ElectraConfig(**SIZES, embedding_size=16), types=2),
    "electra-wide": Case(hf.ElectraConfig(**SIZES, embedding_size=32), types=2),
    "albert": Case(hf.AlbertConfig(**SIZES, embedding_size=16), types=2),
    "albert-groups": Case(
        hf.AlbertConfig(**{**SIZES, "num_hidden_layers": 5}, embedding_size=16, num_hidden_groups=3, inner_group_num=2),
        types=2,
    ),
    "distilbert": Case(hf.DistilBertConfig(**DISTILBERT)),
    "distilbert-sinusoidal": Case(hf.DistilBertConfig(**DISTILBERT, sinusoidal_pos_embds=True, activation="relu")),
    "mpnet": Case(hf.MPNetConfig(**SIZES)),
    "modernbert": Case(hf.ModernBertConfig(**MODERNBERT)),
    "modernbert-biases": Case(
        hf.ModernBertConfig(
            **{**MODERNBERT, "local_attention": 17, "global_attn_every_n_layers": 3},
            norm_bias=True,
            attention_bias=True,
            mlp_bias=True,
            hidden_activation="silu",
        )
    ),
    "nomic-bert": Case(hf.NomicBertConfig(**SIZES), types=2),
    "nomic-bert-heads": Case(hf.NomicBertConfig(**SIZES, head_dim=12, rope_parameters=THETA_50), types=2),
    "gte": Case(hf.GteConfig(**SIZES, type_vocab_size=1)),
    "gte-no-types": Case(hf.GteConfig(**{**SIZES, "type_vocab_size": 0, "hidden_act": "relu"})),
    "gte-types": Case(hf.GteConfig(**SIZES, type_vocab_size=2), types=2),
    "eurobert": Case(hf.EuroBertConfig(**SIZES, pad_token_id=0, num_key_value_heads=2)),
    "eurobert-biases": Case(
        hf.EuroBertConfig(**SIZES, pad_token_id=0, attention_bias=True, mlp_bias=True, rope_parameters=THETA_50)
    ),
}


class Tiny(NamedTuple):
    folder: Path
    types: int
    forward: Forward


@pytest.fixture(scope="module", params=CASES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    case = CASES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    model = save(case.model(), folder)
    return Tiny(folder, case.types, forward_of(model, types=case.types > 1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_hidden_states_are_those_of_transformers(tiny: Tiny, backend: str) -> None:
    items = sequences(1, 2, 7, LONGEST, 64, 31, types=tiny.types)
    states = expected(tiny.forward, items)
    assert np.abs(states).max() > 0.5  # differences mean something
    assert np.abs(Loaded(tiny.folder, backend)(items) - states).max() <= TOLERANCE


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sequence_alone_is_the_same_as_among_others(tiny: Tiny, backend: str) -> None:
    model = Loaded(tiny.folder, backend)
    lengths = [5, 1, 40, 2, 13, 29]
    items = sequences(*lengths, types=tiny.types)
    alone = [model([item]) for item in items]
    for order in ([0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 4, 2], [2, 2, 4]):
        together = np.split(model([items[n] for n in order]), np.cumsum([lengths[n] for n in order])[:-1])
        for n, rows in zip(order, together, strict=True):
            assert np.abs(rows - alone[n]).max() <= 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_positions_end_where_those_of_transformers_do(tiny: Tiny, backend: str) -> None:
    model = Loaded(tiny.folder, backend)
    assert model.max_positions is not None
    config = config_of(tiny.folder)
    padding = {"roberta": 1, "xlm-roberta": 1, "camembert": 1, "mpnet": 1}.get(config["model_type"])
    if config["model_type"] == "roberta":
        padding = config["pad_token_id"]
    assert model.max_positions == config["max_position_embeddings"] - (0 if padding is None else padding + 1)
    items = sequences(model.max_positions, 3, types=tiny.types)
    assert np.abs(model(items) - expected(tiny.forward, items)).max() <= TOLERANCE
