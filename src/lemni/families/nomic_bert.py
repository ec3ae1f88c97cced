"""NomicBERT (arXiv:2402.01613): BERT with rotary positions, a gated MLP and no biases.

Config and weights have two spellings each: those of nomic-ai (GPT-2's words, `Wqkv`, `fc11`, `fc12`) and those of
transformers 5, which may write its config beside the original weights. With `rotary_scaling_factor` the original
stretches positions once a batch holds a text over `max_trained_positions`, by that text's length; here such a model
ends at the trained positions, up to where both agree.
References: nomic-ai/contrastors, `modeling_hf_nomic_bert.py`; transformers, `models/nomic_bert/…`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from lemni.families.parts import LayerNames, LayerNorm, PostNormLayer, either, expect, layout_of
from lemni.families.rope import LONGEST, Rope, rope_parameters
from lemni.families.weights import Weights
from lemni.ops.base import Inputs, Ops, Tensor

_ORIGINAL = LayerNames(
    qkv=("attn.Wqkv",),
    out="attn.out_proj",
    attention_norm="norm1",
    up=("mlp.fc11", "mlp.fc12"),
    down="mlp.fc2",
    mlp_norm="norm2",
)
_NATIVE = LayerNames(
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    out="self_attn.o_proj",
    attention_norm="post_attention_layernorm",
    up=("mlp.up_proj", "mlp.gate_proj"),
    down="mlp.down_proj",
    mlp_norm="post_mlp_layernorm",
)
_LAYOUTS = {"encoder.layers": (_ORIGINAL,), "layers": (_NATIVE,)}

# activation_function of the original config -> the gate's activation.
_GATES = {"swiglu": "silu", "glu": "sigmoid", "geglu": "gelu"}


@dataclass(frozen=True)
class _Facts:
    """What either spelling of the config says."""

    layers: int
    heads: int
    rotary: int  # values of a head that are rotated
    rope: dict[str, Any]
    positions: int
    activation: str
    gated: bool
    eps: float


class NomicBert:
    """Post-norm encoder with rotary positions."""

    def __init__(self, config: dict[str, Any], weights: Weights, ops: Ops) -> None:
        self.ops = ops
        facts = _original(config) if "n_embd" in config else _native(config)
        weights = weights.rooted("embeddings.word_embeddings.weight", ("", "nomic_bert.", "bert."))
        self.words = ops.constant(weights.matrix("embeddings.word_embeddings.weight"))
        types = weights.get("embeddings.token_type_embeddings.weight")
        self.types = None if types is None else ops.constant(types)
        norm = "emb_ln" if "emb_ln.weight" in weights else "embeddings.LayerNorm"
        self.norm = LayerNorm(weights.scope(norm), ops, facts.eps)
        self.max_positions: int | None = min(facts.positions, LONGEST)
        self.rope = Rope(facts.rope, facts.rotary, self.max_positions, ops) if facts.rotary else None
        where, names = layout_of(weights, _LAYOUTS)
        if not facts.gated:
            names = replace(names, up=("mlp.fc1",))
        self.layers = [
            PostNormLayer(
                weights.scope(f"{where}.{n}"),
                names,
                ops,
                heads=facts.heads,
                activation=facts.activation,
                eps=facts.eps,
                gate=1 if facts.gated else None,
            )
            for n in range(facts.layers)
        ]

    def __call__(self, inputs: Inputs) -> Tensor:
        x = self.ops.embedding(self.words, inputs.ids)
        if self.types is not None:
            x = x + self.ops.embedding(self.types, inputs.token_types)
        x = self.norm(x)
        rotation = None if self.rope is None else self.rope(inputs)
        for layer in self.layers:
            x = layer(x, inputs, rotation)
        return x


def _original(config: dict[str, Any]) -> _Facts:
    # What the original code can do besides; of the published embedders only the mixture of experts does.
    for flag in ("prenorm", "parallel_block", "rotary_emb_interleaved", "use_rms_norm", "causal"):
        expect(config, flag, False)
    for key in ("rotary_emb_scale_base", "num_heads_kv", "num_experts", "moe_every_n_layers"):
        expect(config, key, None, 0)
    heads = either(config, "n_head")
    dim = config["n_embd"] // heads
    positions = config.get("n_positions", 2048)
    if config.get("rotary_scaling_factor"):
        positions = min(positions, config.get("max_trained_positions", 2048))
    activation = expect(config, "activation_function", "gelu", *_GATES)
    return _Facts(
        layers=either(config, "n_layer"),
        heads=heads,
        rotary=int(dim * config.get("rotary_emb_fraction", 0.0)),
        rope={"rope_type": "default", "rope_theta": config.get("rotary_emb_base", 10_000.0)},
        positions=positions,
        activation=_GATES.get(activation, activation),
        gated=activation in _GATES,
        eps=config.get("layer_norm_epsilon", 1e-5),
    )


def _native(config: dict[str, Any]) -> _Facts:
    heads = either(config, "num_attention_heads")
    dim = config.get("head_dim") or either(config, "hidden_size") // heads
    return _Facts(
        layers=either(config, "num_hidden_layers"),
        heads=heads,
        rotary=dim,
        rope=rope_parameters(config, 1000.0),
        positions=config.get("max_position_embeddings", 2048),
        activation=config.get("hidden_act", "silu"),
        gated=True,
        eps=config.get("layer_norm_eps", 1e-12),
    )
