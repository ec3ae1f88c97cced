"""Tiny sparse models as sentence-transformers saves them, and how answers are asked for and compared."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from numpy.typing import NDArray
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

from lemni.config import EngineSettings
from lemni.engine import Engine
from lemni.tasks.model import LoadedModel
from lemni.types import Item, Options, Request, Result, SparseVector, Task
from tests.families.decoders import save
from tests.tasks.classifiers import FAMILIES, tokenizer


def save_masked(folder: Path, family: str, **config: Any) -> Any:
    """Write a masked language model's config, weights and tokenizer; the model, as transformers has it."""
    cls, special, kind = FAMILIES[family]
    chosen = tokenizer(kind)
    sizes = {
        "vocab_size": len(chosen),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
    }
    chosen.save_pretrained(folder)
    return save(hf.AutoModelForMaskedLM.from_config(cls(**{**sizes, **special, **config})), folder)


def splade(folder: Path, family: str = "bert", config: dict[str, Any] | None = None, **pooling: Any) -> SparseEncoder:
    """A SPLADE model saved in `folder`, as its reference."""
    save_masked(folder / "masked", family, **(config or {}))
    first = Transformer(str(folder / "masked"), transformer_task="fill-mask")
    encoder = SparseEncoder(modules=[first, SpladePooling(**pooling)], device="cpu")
    encoder.save(str(folder))
    return encoder


def router(folder: Path, *, default: str = "document") -> SparseEncoder:
    """A SPLADE model whose queries are looked up, saved in `folder`."""
    save_masked(folder / "masked", "bert")
    documents = [Transformer(str(folder / "masked"), transformer_task="fill-mask"), SpladePooling()]
    chosen = documents[0].tokenizer
    weights = torch.linspace(-1, 5, len(chosen))
    weights[7] = 0
    queries = [SparseStaticEmbedding(chosen, weight=weights, frozen=True)]
    routes = Router.for_query_document(queries, documents, default_route=default)
    encoder = SparseEncoder(modules=[routes], device="cpu", prompts={"query": "ask: ", "document": ""})
    encoder.save(str(folder))
    return encoder


def dense(vectors: Seq[SparseVector], size: int) -> NDArray[np.float32]:
    """[texts, vocabulary]; checks that ids ascend and that no weight is zero."""
    rows = np.zeros((len(vectors), size), dtype=np.float32)
    for row, (ids, values) in zip(rows, vectors, strict=True):
        assert (ids.dtype, values.dtype) == (np.int32, np.float32)
        assert (np.diff(ids) > 0).all()
        assert (values != 0).all()
        row[ids] = values
    return rows


def served(model: LoadedModel, *requests: Request) -> list[Result]:
    """The results of requests through the engine, all in flight at once; errors are raised."""
    engine = Engine({"model": model}, EngineSettings())
    engine.start()
    try:
        handles = [engine.submit("model", request) for request in requests]
        return [handle.result(60) for handle in handles]
    finally:
        engine.close()


def request(items: Seq[Item], *tasks: Task, **options: Any) -> Request:
    return Request(items, Options(**options), tasks or ("sparse",))
