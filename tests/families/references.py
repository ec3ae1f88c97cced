"""Models that transformers has no class for, or no longer, in plain torch: the papers and the models' own code.

Written from jinaai/jina-bert-implementation, jinaai/jina-bert-v2-qk-post-norm, nomic-ai/contrastors and
Alibaba-NLP/new-impl. One sequence at a time, tensors by the names of the hub's files; shares nothing with Lemni.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

Tensors = dict[str, torch.Tensor]
SIZE, INNER, VOCABULARY = 48, 40, 99


def random_tensors(shapes: dict[str, tuple[int, ...]]) -> Tensors:
    """Norms around one, everything else of a size that keeps values in bounds and shows what is forgotten."""
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator)
        is_norm = len(shape) == 1 and name.endswith("weight")
        tensors[name] = 1 + 0.3 * values if is_norm else values * (0.3 if len(shape) == 1 else shape[-1] ** -0.5)
    return tensors


def linear_shapes(name: str, out: int, size: int, *, bias: bool = True) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, size), **({f"{name}.bias": (out,)} if bias else {})}


def norm_shapes(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (SIZE,), f"{name}.bias": (SIZE,)}


def linear(x: torch.Tensor, tensors: Tensors, name: str) -> torch.Tensor:
    return F.linear(x, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))


def norm(x: torch.Tensor, tensors: Tensors, name: str, eps: float) -> torch.Tensor:
    return F.layer_norm(x, (SIZE,), tensors[f"{name}.weight"], tensors[f"{name}.bias"], eps)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: float | torch.Tensor = 0) -> torch.Tensor:
    """[tokens, heads, dim] each -> [tokens, heads * dim]."""
    scores = torch.einsum("qhd,khd->hqk", query, key) / math.sqrt(query.shape[-1]) + bias
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), value).flatten(1)


# JinaBERT


def jina_shapes(layers: int, *, code: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (VOCABULARY, SIZE),
        "embeddings.token_type_embeddings.weight": (2, SIZE),
        **norm_shapes("embeddings.LayerNorm"),
    }
    for n in range(layers):
        at = f"encoder.layer.{n}."
        for name in ("query", "key", "value"):
            shapes |= linear_shapes(f"{at}attention.self.{name}", SIZE, SIZE)
        shapes |= linear_shapes(f"{at}attention.output.dense", SIZE, SIZE)
        shapes |= norm_shapes(f"{at}attention.output.LayerNorm")
        if code:
            for name in ("attention.self.layer_norm_q", "attention.self.layer_norm_k", "layer_norm_1", "layer_norm_2"):
                shapes |= norm_shapes(at + name)
        else:
            shapes |= norm_shapes(f"{at}mlp.layernorm")
        up, down = ("up_gated_layer", "down_layer") if code else ("gated_layers", "wo")
        shapes |= linear_shapes(f"{at}mlp.{up}", 2 * INNER, SIZE, bias=False)
        shapes |= linear_shapes(f"{at}mlp.{down}", SIZE, INNER)
    return shapes


def alibi_slopes(heads: int) -> list[float]:
    if math.log2(heads).is_integer():
        start = 2 ** -(2 ** -(math.log2(heads) - 3))
        return [start * start**n for n in range(heads)]
    power = 2 ** math.floor(math.log2(heads))
    return alibi_slopes(power) + alibi_slopes(2 * power)[0::2][: heads - power]


def jina_bert(config: dict[str, Any], tensors: Tensors, ids: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
    heads, eps = config["num_attention_heads"], config["layer_norm_eps"]
    act = {"geglu": F.gelu, "reglu": F.relu}[config["feed_forward_type"]]
    x = tensors["embeddings.word_embeddings.weight"][ids] + tensors["embeddings.token_type_embeddings.weight"][types]
    x = norm(x, tensors, "embeddings.LayerNorm", eps)
    places = torch.arange(len(ids))
    alibi = -torch.tensor(alibi_slopes(heads))[:, None, None] * (places[None, :] - places[:, None]).abs()
    for n in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{n}."
        code = f"{at}layer_norm_1.weight" in tensors
        query, key, value = (linear(x, tensors, f"{at}attention.self.{name}") for name in ("query", "key", "value"))
        if code:
            query = norm(query, tensors, f"{at}attention.self.layer_norm_q", eps)
            key = norm(key, tensors, f"{at}attention.self.layer_norm_k", eps)
        attended = attend(*(part.view(len(ids), heads, -1) for part in (query, key, value)), bias=alibi)
        attended = linear(attended, tensors, f"{at}attention.output.dense")
        attended = norm(attended + x, tensors, f"{at}attention.output.LayerNorm", eps)
        if code:
            x = norm(x + attended, tensors, f"{at}layer_norm_1", eps)
            up, gated = linear(x, tensors, f"{at}mlp.up_gated_layer").chunk(2, -1)
            x = norm(x + linear(up * act(gated), tensors, f"{at}mlp.down_layer"), tensors, f"{at}layer_norm_2", eps)
        else:
            x = attended
            gated, plain = linear(x, tensors, f"{at}mlp.gated_layers").chunk(2, -1)
            x = norm(x + linear(act(gated) * plain, tensors, f"{at}mlp.wo"), tensors, f"{at}mlp.layernorm", eps)
    return x


# NomicBERT in its original form, with the options that transformers' class does not have


def nomic_shapes(layers: int, *, bias: bool, gated: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (VOCABULARY, SIZE),
        "embeddings.token_type_embeddings.weight": (2, SIZE),
        **norm_shapes("emb_ln"),
    }
    for n in range(layers):
        at = f"encoder.layers.{n}."
        shapes |= linear_shapes(f"{at}attn.Wqkv", 3 * SIZE, SIZE, bias=bias)
        shapes |= linear_shapes(f"{at}attn.out_proj", SIZE, SIZE, bias=bias)
        for name in ("fc11", "fc12") if gated else ("fc1",):
            shapes |= linear_shapes(f"{at}mlp.{name}", INNER, SIZE, bias=bias)
        shapes |= linear_shapes(f"{at}mlp.fc2", SIZE, INNER, bias=bias)
        shapes |= norm_shapes(f"{at}norm1") | norm_shapes(f"{at}norm2")
    return shapes


def rotated(x: torch.Tensor, base: float, width: int) -> torch.Tensor:
    """Turns the first `width` values of each head, [tokens, heads, dim]; the halves of them are the pairs."""
    frequencies = 1.0 / base ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
    angles = torch.outer(torch.arange(len(x), dtype=torch.float32), frequencies)[:, None, :]
    left, right, rest = x[..., : width // 2], x[..., width // 2 : width], x[..., width:]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([left * cos - right * sin, right * cos + left * sin, rest], -1)


def nomic_bert(config: dict[str, Any], tensors: Tensors, ids: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
    heads, eps, kind = config["n_head"], config["layer_norm_epsilon"], config["activation_function"]
    act = {"glu": torch.sigmoid, "swiglu": F.silu}.get(kind, F.gelu)
    x = tensors["embeddings.word_embeddings.weight"][ids] + tensors["embeddings.token_type_embeddings.weight"][types]
    x = norm(x, tensors, "emb_ln", eps)
    width = int(SIZE // heads * config["rotary_emb_fraction"])
    for n in range(config["n_layer"]):
        at = f"encoder.layers.{n}."
        query, key, value = linear(x, tensors, f"{at}attn.Wqkv").view(len(ids), 3, heads, -1).unbind(1)
        if width:
            query, key = (rotated(part, config["rotary_emb_base"], width) for part in (query, key))
        attended = linear(attend(query, key, value), tensors, f"{at}attn.out_proj")
        x = norm(attended + x, tensors, f"{at}norm1", eps)
        if kind in ("glu", "swiglu", "geglu"):
            inner = linear(x, tensors, f"{at}mlp.fc11") * act(linear(x, tensors, f"{at}mlp.fc12"))
        else:
            inner = act(linear(x, tensors, f"{at}mlp.fc1"))
        x = norm(linear(inner, tensors, f"{at}mlp.fc2") + x, tensors, f"{at}norm2", eps)
    return x


# GTE's fixed NTK scaling


def ntk_frequencies(dim: int, theta: float, factor: float, mixed_b: float | None) -> torch.Tensor:
    base = theta * (factor if mixed_b is None else 1)
    frequencies = 1.0 / (base ** (torch.arange(0, dim, 2).float() / dim))
    if mixed_b is None:
        return frequencies / factor ** (2 / dim)
    a = torch.tensor(factor).log() / (dim / 2) ** mixed_b
    return frequencies / (a * torch.arange(1, dim // 2 + 1).float() ** mixed_b).exp()
