"""Lemni on a GPU against sentence-transformers and against the GPU itself; offline, random weights, only on CUDA.

For the shapes of MiniLM, BERT-base, bge-large and Qwen3-0.6B, with texts of mixed lengths: tokens per second from texts
to vectors, the share of the rate at which the GPU multiplies large bfloat16 matrices, cosines to float32 on the CPU.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import lemni
from benchmarks.rounds import alternate

LONGEST = 512
WORDS = 20_000
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
CHECKED = 32
ST_BATCHES = (32, 128)


@dataclass(frozen=True)
class Shape:
    """A model to be made.

    Attributes:
        texts: how many are embedded.
        config: of transformers, besides what all have.
    """

    name: str
    kind: str
    texts: int
    pooling: str
    config: Mapping[str, Any] = field(default_factory=dict)


def bert(name: str, texts: int, pooling: str, layers: int, hidden: int, heads: int) -> Shape:
    sizes = {"num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads}
    return Shape(name, "bert", texts, pooling, {**sizes, "intermediate_size": 4 * hidden})


SHAPES = (
    bert("MiniLM-L6", 8192, "mean", 6, 384, 12),
    bert("BERT-base", 4096, "mean", 12, 768, 12),
    bert("bge-large", 4096, "cls", 24, 1024, 16),
    Shape(
        "Qwen3-0.6B",
        "qwen3",
        2048,
        "lasttoken",
        {
            "num_hidden_layers": 28,
            "hidden_size": 1024,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 3072,
        },
    ),
)


def main(rounds: int = 3) -> None:
    if not torch.cuda.is_available():
        sys.exit("the benchmark gpu needs a GPU that torch can use; this machine has none")
    peak = gemm_rate(torch.device("cuda"))
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; bfloat16 GEMM: {peak / 1e12:.0f} TFLOP/s\n")
    variants: dict[str, dict[str, Any]] = {"lemni": {}, "lemni compile": {"compile": True}}
    if torch.cuda.get_device_capability() >= (8, 9):
        variants["lemni fp8"] = {"dtype": "fp8"}
    for shape in SHAPES:
        compare(shape, variants, "cuda", peak, rounds)


def compare(
    shape: Shape, variants: Mapping[str, Mapping[str, Any]], device: str, peak: float, rounds: int
) -> dict[str, float]:
    """Print a table for one shape; tokens per second by row. `peak` is in FLOP/s."""
    with TemporaryDirectory() as where, ExitStack() as stack:
        folder = make(shape, Path(where))
        texts, lengths = mixed_texts(shape.texts)
        exact = exact_vectors(folder, texts[:CHECKED])
        runs, vectors = {}, {}
        for name, settings in variants.items():
            try:
                model = stack.enter_context(lemni.load(str(folder), device=device, **settings))
            except lemni.errors.LemniError as error:
                print(f"{name}: {error}")
                continue
            runs[f"{name}, {model.card.dtype}"] = lambda model=model: model.embed(texts)
            vectors[f"{name}, {model.card.dtype}"] = np.asarray(model.embed(texts[:CHECKED]))
        reference = sentence_transformer(folder, device)
        for size in ST_BATCHES:
            name = f"sentence-transformers, {size}"
            runs[name] = lambda size=size: reference.encode(texts, batch_size=size)
            vectors[name] = reference.encode(texts[:CHECKED], batch_size=size)
        seconds = alternate(runs, rounds)
        best = min(value for name, value in seconds.items() if name.startswith("sentence"))
        work = flops(json.loads((folder / "config.json").read_text()), lengths)
        print(f"## {shape.name}: {len(texts)} texts, {lengths.sum()} tokens, {lengths.min()} to {lengths.max()} each\n")
        print(f"{'':34} {'tokens/s':>12} {'of GEMM':>8} {'ratio':>6} {'cosine to float32':>24}")
        for name, value in seconds.items():
            alike = (vectors[name] * exact).sum(axis=1)
            cosines = f"{alike.mean():.5f}, least {alike.min():.5f}"
            share = work / value / peak
            print(f"{name:34} {lengths.sum() / value:12.0f} {share:8.1%} {best / value:6.2f} {cosines:>24}")
        print(flush=True)
        return {name: float(lengths.sum() / value) for name, value in seconds.items()}


def gemm_rate(
    device: torch.device, size: int = 8192, dtype: torch.dtype = torch.bfloat16, seconds: float = 1.0
) -> float:
    """FLOP/s of large square matrix products: the best of rounds of five, for about so many seconds."""
    one, two = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or best == float("inf"):
        synchronize(device)
        start = time.perf_counter()
        for _ in range(5):
            one @ two
        synchronize(device)
        best = min(best, (time.perf_counter() - start) / 5)
    return 2 * size**3 / best


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def flops(config: Mapping[str, Any], lengths: NDArray[np.int64]) -> float:
    """Of the matrix products that these sequences need: 2 for each weight of a layer and token, and attention's own."""
    hidden, layers, heads = config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]
    dim = config.get("head_dim") or hidden // heads
    shared = config.get("num_key_value_heads") or heads
    gated = config["model_type"] != "bert"
    weights = hidden * dim * (2 * heads + 2 * shared) + (3 if gated else 2) * hidden * config["intermediate_size"]
    pairs = (lengths.astype(np.float64) ** 2).sum() / (2 if gated else 1)  # decoders see half of them
    return layers * (2.0 * weights * float(lengths.sum()) + 4.0 * heads * dim * float(pairs))


def mixed_texts(count: int, seed: int = 0) -> tuple[list[str], NDArray[np.int64]]:
    """Texts of words that are a token each, and their lengths in tokens with the two special ones: log-normal, as
    queries and passages are together, up to the longest."""
    random = np.random.default_rng(seed)
    lengths = np.clip(random.lognormal(4.3, 1.0, count).astype(np.int64), 4, LONGEST)
    return [" ".join(f"w{n}" for n in random.integers(0, WORDS, length - 2)) for length in lengths], lengths


def make(shape: Shape, folder: Path) -> Path:
    """A sentence-transformers folder with random weights and a tokenizer of one token a word."""
    import transformers

    common = {"vocab_size": WORDS + len(SPECIAL), "max_position_embeddings": LONGEST, "pad_token_id": 0}
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(shape.kind, **{**common, **shape.config})
    transformers.AutoModel.from_config(config).to(half_of(shape.kind)).save_pretrained(folder)
    tokenizer(folder)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    listed = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": LONGEST, "do_lower_case": False}))
    (folder / "1_Pooling").mkdir()
    pooling = {
        "word_embedding_dimension": shape.config["hidden_size"],
        "pooling_mode_cls_token": shape.pooling == "cls",
        "pooling_mode_mean_tokens": shape.pooling == "mean",
        "pooling_mode_lasttoken": shape.pooling == "lasttoken",
    }
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def half_of(kind: str) -> torch.dtype:
    return torch.float16 if kind == "bert" else torch.bfloat16


def tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: n for n, word in enumerate([*SPECIAL, *(f"w{n}" for n in range(WORDS))])}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [("[CLS]", words["[CLS]"]), ("[SEP]", words["[SEP]"])]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast = PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=LONGEST, **names)
    fast.save_pretrained(folder)


def sentence_transformer(folder: Path, device: str) -> Any:
    """In half precision, as it is run on GPUs: float16, for decoders bfloat16. On a CPU float32."""
    from sentence_transformers import SentenceTransformer

    kind = json.loads((folder / "config.json").read_text())["model_type"]
    dtype = torch.float32 if device == "cpu" else half_of(kind)
    return SentenceTransformer(str(folder), device=device, model_kwargs={"dtype": dtype})


def exact_vectors(folder: Path, texts: list[str]) -> NDArray[np.float32]:
    """By sentence-transformers in float32 on the CPU."""
    return np.asarray(sentence_transformer(folder, "cpu").encode(texts, batch_size=8))


if __name__ == "__main__":
    main()
