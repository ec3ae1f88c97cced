"""Dense embeddings: one vector per item.

The runtime computes encoder, pooling and Dense modules; normalising and cutting to `dimensions` are done here, on whole
requests, so that requests with different options share batches. Also the last hidden states of all tokens, and with
them late chunking (arXiv:2409.04701), where the model's backend gives them.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.errors import InvalidRequest, LemniError, TaskNotSupported
from lemni.hub.spec import ModelSpec
from lemni.ops.numpy import NumpyOps
from lemni.runtimes.base import Heads
from lemni.tasks.base import Loaded, Parts, TaskModel
from lemni.tasks.head import dense_head, dense_modules
from lemni.tasks.pairwise import Pairwise
from lemni.tasks.similarity import SIMILARITIES, unit_length
from lemni.tasks.texts import Texts
from lemni.tasks.tokenizer import Named, Tokenizer
from lemni.types import (
    Audio,
    Chunks,
    Image,
    InputType,
    Item,
    Mixed,
    Options,
    Output,
    PackedBatch,
    Pair,
    Request,
    Row,
    Sequence,
    Task,
)

_Vectors = NDArray[np.float32]


def heads(spec: ModelSpec) -> Heads:
    return {"dense": dense_head(spec), "tokens": lambda ops: lambda hidden, inputs: hidden}


def load(parts: Parts) -> Loaded:
    tokenizer = Tokenizer(parts.spec, parts.max_length, parts.spec.config.get("vocab_size"))
    [probe] = parts.backend.replica(0).run(_PROBE)
    size = int(probe["dense"].shape[-1])
    embed = DenseTask(parts, Texts(parts, tokenizer), size)
    tasks: dict[Task, TaskModel] = {"embed": embed}
    tasks["score"] = Pairwise(embed, embed.similarities, parts.truncate)
    if "tokens" in parts.backend.outputs:
        tasks["tokens"] = TokensTask(embed.texts)
    return Loaded(tasks, tokenizer, parts.spec.truncate_dim or size)


_PROBE = PackedBatch.pack([Sequence(np.zeros(1, dtype=np.int32))])


def plain(item: Item, name: str) -> str | Seq[int]:
    """The item, if it is a text or a list of token ids. Raises InvalidRequest."""
    if isinstance(item, Image | Audio | Mixed | Chunks | Pair):
        raise InvalidRequest(f"{name} embeds single texts, not {_SHOWN[type(item)]}")
    return item


_SHOWN: dict[type, str] = {
    Image: "images",
    Audio: "sounds",
    Mixed: "texts with images",
    Chunks: "chunks of a document",
    Pair: "pairs",
}


class DenseTask:
    """The task "embed" of a text model.

    Args:
        size: length of the vectors that the backend gives.
    """

    def __init__(self, parts: Parts, texts: Texts, size: int) -> None:
        self.texts = texts
        self._spec = parts.spec
        self._name = parts.name
        self._size = parts.spec.truncate_dim or size
        # Several modes would make wider vectors than the mean over a span.
        self._late = "tokens" in parts.backend.outputs and len(parts.spec.pooling) == 1
        self._modules = dense_modules(parts.spec, NumpyOps()) if self._late else ()

    def validate(self, request: Request) -> None:
        dimensions = request.options.dimensions
        if dimensions is not None and not 1 <= dimensions <= self._size:
            raise InvalidRequest(
                f"dimensions is {dimensions}, but {self._name} gives vectors of 1 to {self._size}",
                param="dimensions",
            )
        self.texts.validate(request.options)

    def estimate(self, item: Item, request: Request) -> int:
        if isinstance(item, Chunks):
            if not self._late:
                raise TaskNotSupported(f"{self._name} does not give one vector per token, which late chunking needs")
            return sum((self.texts.tokenizer.estimate(text, whole=True) for text in item.texts), 1)
        return self.texts.estimate(plain(item, self._name), request.options)

    def encode(self, request: Request, start: int, stop: int) -> list[list[Sequence] | LemniError]:
        items = request.items[start:stop]
        if any(isinstance(item, Chunks) for item in items):
            return [self._encode_one(item, request, at) for at, item in enumerate(items, start)]
        return self.encode_items(items, request.options, lambda place: request.named(start + place))

    def encode_items(
        self, items: Seq[Any], options: Options, named: Named, side: InputType | None = None
    ) -> list[list[Sequence] | LemniError]:
        """The sequences of texts or lists of token ids that are on one side of a search."""
        return self.texts.encode(items, options, ("dense",), named, side)

    def finish(self, items: Seq[Seq[Row]], request: Request) -> dict[str, Any]:
        return {"vectors": self.vectors(items, request.options)}

    def vectors(self, items: Seq[Seq[Row]], options: Options) -> _Vectors:
        """float32 [items, dimensions], C-contiguous; a row for each part of an item with spans."""
        if all(len(rows) == 1 and rows[0].sequence.spans is None for rows in items):
            vectors = np.stack([rows[0].outputs["dense"] for rows in items])
        else:
            vectors = np.concatenate([self._pooled(rows) for rows in items])
        normalize = self._spec.normalize if options.normalize is None else options.normalize
        if options.dimensions is None:
            # sentence-transformers cuts to `truncate_dim` last, and leaves the cut vectors short.
            vectors = unit_length(vectors) if normalize else vectors
            return np.ascontiguousarray(vectors[:, : self._spec.truncate_dim])
        # A cut vector is no longer of unit length, so `dimensions` normalises unless told otherwise (as OpenAI does).
        vectors = np.ascontiguousarray(vectors[:, : options.dimensions])
        return vectors if options.normalize is False else unit_length(vectors)

    def similarities(self, firsts: Seq[Seq[Row]], seconds: Seq[Seq[Row]], options: Options) -> _Vectors:
        """float32 [pairs]: the model's own similarity function of two vectors each."""
        similarity = SIMILARITIES[self._spec.similarity]
        return similarity(self.vectors(firsts, options), self.vectors(seconds, options))

    def _encode_one(self, item: Item, request: Request, at: int) -> list[Sequence] | LemniError:
        if isinstance(item, Chunks):
            prompt = self.texts.prompt(request.options)
            whole = self.texts.tokenizer.encode_chunks(item.texts, request.named(at), prompt)
            return whole if isinstance(whole, LemniError) else [whole]
        return self.encode_items([item], request.options, lambda _: request.named(at))[0]

    def _pooled(self, rows: Seq[Row]) -> _Vectors:
        """[1, dim] of a text, or of the windows of a long one; [parts, dim] of the parts of a document."""
        spans = rows[0].sequence.spans
        if spans is not None:
            tokens = rows[0].outputs["tokens"]
            vectors = np.stack([tokens[start:stop].mean(axis=0) for start, stop in spans])
            for module in self._modules:
                vectors = module(vectors)
            return vectors
        weights = np.array([len(row.sequence.ids) for row in rows], dtype=np.float32)
        dense = np.stack([row.outputs["dense"] for row in rows])
        if self._spec.normalize:
            dense = unit_length(dense)
        mean: _Vectors = (weights @ dense / weights.sum())[None]
        return mean


class TokensTask:
    """The task "tokens": the last hidden state of every token, special tokens included, never normalised."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts

    def validate(self, request: Request) -> None:
        self._texts.validate(request.options)

    def estimate(self, item: Item, request: Request) -> int:
        return self._texts.estimate(plain(item, "the task"), request.options)

    def encode(self, request: Request, start: int, stop: int) -> list[list[Sequence] | LemniError]:
        items: Seq[Any] = request.items[start:stop]
        outputs: tuple[Output, ...] = ("tokens",)
        return self._texts.encode(items, request.options, outputs, lambda place: request.named(start + place))

    def finish(self, items: Seq[Seq[Row]], request: Request) -> dict[str, Any]:
        return {"multi_vectors": tuple(np.concatenate([row.outputs["tokens"] for row in rows]) for rows in items)}
