"""What kind of model a folder holds: the facts that tasks and runtimes need, read once.

sentence-transformers' files are the contract: `modules.json`, `1_Pooling/config.json`, `2_Dense/`,
`config_sentence_transformers.json`, `sentence_bert_config.json`, `tokenizer_config.json`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lemni.types import TruncationSide

PoolingMode = Literal["cls", "mean", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens"]


ModelKind = Literal["dense", "classifier", "causal_reranker", "sparse", "colbert", "bge_m3", "multimodal"]
"""What a model gives: the row of `lemni.tasks.KINDS` that makes its tasks."""


@dataclass(frozen=True)
class ModelFiles:
    """A model found on disk, and where it came from.

    Attributes:
        id: the name it was asked for by, as clients use it.
        path: its folder (the one with `config.json` or `modules.json`).
        revision: commit or version that pins it; of a folder, the hash of its files' names, sizes and times.
        source: how it was found: "folder", "cache", "package", "hf-cache", "hub" or "index".
        graph: the exported graph that was named instead of the folder, relative to it.
    """

    id: str
    path: Path
    revision: str | None
    source: str
    graph: str | None = None


@dataclass(frozen=True)
class DenseLayer:
    """A sentence-transformers Dense module: `activation(x W^T + b)`.

    `path` is its safetensors file, with `linear.weight` [out, in] and `linear.bias` [out]. A `residual` adds its input,
    by `residual.weight` [out, in] if the sizes differ.
    """

    path: Path
    in_features: int
    out_features: int
    bias: bool
    activation: str
    """Last part of the torch class name: "Tanh", "Identity", "GELU" ..."""
    residual: bool = False


@dataclass(frozen=True)
class ModelSpec:
    """All facts about a model except its weights.

    Attributes:
        config: the transformer's `config.json`, as it is.
        model_type: its `model_type`, such as "bert"; "model2vec" for static embeddings; "" for a bare graph.
        architectures: its `architectures`.
        transformer_path: folder of the transformer's own files (weights, tokenizer).
        weights: safetensors files, sorted; empty if there are none.
        graph: the exported graph to use (an ONNX file or OpenVINO's IR), or None.
        pickle: pickled weights (`pytorch_model.bin`), or None; loaded only with `trust_pickle`.
        pooling: modes whose results are concatenated, in sentence-transformers' order.
        include_prompt: whether pooling sees the prompt's tokens.
        dense: Dense modules after pooling, in order.
        normalize: whether the modules end in Normalize.
        max_length: tokens of the longest input, special tokens included; None if nothing says so.
        lower_case: whether texts are lower-cased before the tokenizer (`do_lower_case`).
        truncation_side: where the tokenizer cuts.
        padding_side: where the tokenizer would pad; reference implementations pool by it, packed batches never pad.
        prompts: name to text; only what the files say.
        default_prompt_name: prompt used when a request names none.
        similarity: "cosine", "dot", "euclidean" or "manhattan"; of late interaction "maxsim" or "meanmaxsim".
        matryoshka_dimensions: sizes the model was trained for, if its files say so.
        truncate_dim: length that sentence-transformers cuts vectors to by default (not normalised again), or None.
        kind: what it gives.
        notes: guesses that were made, one sentence each, for the log and `lemni models show`.
    """

    files: ModelFiles
    config: dict[str, Any]
    model_type: str
    architectures: tuple[str, ...]
    transformer_path: Path
    weights: tuple[Path, ...]
    graph: Path | None = None
    pickle: Path | None = None
    pooling: tuple[PoolingMode, ...] = ("mean",)
    include_prompt: bool = True
    dense: tuple[DenseLayer, ...] = ()
    normalize: bool = False
    max_length: int | None = None
    lower_case: bool = False
    truncation_side: TruncationSide = "right"
    padding_side: TruncationSide = "right"
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: str = "cosine"
    matryoshka_dimensions: tuple[int, ...] = ()
    truncate_dim: int | None = None
    kind: ModelKind = "dense"
    notes: tuple[str, ...] = ()
