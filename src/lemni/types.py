"""The words every layer shares: what is asked for, what is computed, what comes back.

A *request* holds *items*; tokenising turns an item into a *sequence* or several; sequences are packed into a *batch*
without padding; computed, each gives a *row* of outputs. Arrays are numpy until a dialect writes bytes. Knows no I/O
and no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Task: TypeAlias = Literal["embed", "sparse", "multi_vector", "score", "classify", "tokens"]
"""What is asked for: dense vectors, term weights, late-interaction vectors, the relevance of pairs, labels, or the last
hidden state of every token."""

TASK_WORDS: dict[Task, str] = {
    "embed": "embeddings",
    "sparse": "sparse embeddings",
    "multi_vector": "multi-vector embeddings",
    "score": "reranking",
    "classify": "classification",
    "tokens": "token embeddings",
}
"""Tasks as messages name them."""

Output: TypeAlias = Literal["dense", "tokens", "terms", "token_weights", "multi_vector", "logits"]
"""What a forward pass can give, by name; which of them a model gives is up to its kind (`lemni.tasks`).

dense [dim], terms [vocabulary] and logits [labels] are one row per sequence; tokens [tokens, hidden] (the last hidden
states), token_weights [tokens, 1] and multi_vector [tokens, dim] one row per token. Of terms a runtime hands out only
those over zero: [2, n], their ids in the first row (float32 holds them exactly) and their values in the second."""

TOKEN_OUTPUTS: frozenset[Output] = frozenset(("tokens", "token_weights", "multi_vector"))
"""Those with a row per token."""

Modality: TypeAlias = Literal["text", "image", "audio"]
Priority: TypeAlias = Literal["interactive", "bulk"]
TruncationSide: TypeAlias = Literal["left", "right"]
Truncate: TypeAlias = Literal["right", "left", "error", "chunk"]
"""What happens to a text over the model's length: cut at its end, at its start, refused, or embedded in chunks of that
length whose vectors are averaged, weighted by their tokens."""

InputType: TypeAlias = Literal["query", "document"]
"""Which side of a search a text is on, for models that treat the two differently."""

Activation: TypeAlias = Literal["none", "sigmoid", "softmax"]


@dataclass(frozen=True, slots=True)
class Image:
    """An image file's bytes, not yet decoded."""

    data: bytes

    def __len__(self) -> int:
        return len(self.data)


@dataclass(frozen=True, slots=True)
class Audio:
    """A sound file's bytes, not yet decoded."""

    data: bytes

    def __len__(self) -> int:
        return len(self.data)


@dataclass(frozen=True, slots=True)
class Mixed:
    """Texts and images that are one input, in order."""

    parts: tuple[str | Image, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))


@dataclass(frozen=True, slots=True)
class Chunks:
    """Consecutive parts of one document, embedded in one context: one vector each (late chunking, arXiv:2409.04701)."""

    texts: tuple[str, ...]

    def __len__(self) -> int:
        return sum(map(len, self.texts))


@dataclass(frozen=True, slots=True)
class Pair:
    """Two inputs that are scored or classified together: a query and a document, a premise and a hypothesis.

    Attributes:
        symmetric: neither is a query: models that treat queries and documents differently embed both alike.
    """

    first: str | Image | Mixed
    second: str | Image | Mixed
    symmetric: bool = False

    def __len__(self) -> int:
        return len(self.first) + len(self.second)


Item: TypeAlias = str | Seq[int] | Image | Audio | Mixed | Chunks | Pair
"""One input: a text, the token ids of one text in the served model's vocabulary (special tokens included), or one of
the classes above. `len` is its size in characters, tokens or bytes."""


@dataclass(frozen=True, slots=True)
class Options:
    """How items become results. None always means the model's or the server's own default.

    Attributes:
        dimensions: keep the first N values and normalise again (Matryoshka); 1..model dimension.
        normalize: unit length or raw; default is what the model's own modules do.
        prompt: text put before every item; wins over `prompt_name`. A causal reranker's instruction.
        prompt_name: key of the model's `prompts`, such as "query" or "document".
        input_type: which side of a search the items are on; takes the model's prompt for it, if it has one.
        truncate: what to do with items over the model's length.
        max_tokens: a lower limit than the model's length; of a pair's document by itself.
        activation: applied to the scores or to the logits of the labels; default is the model's own.
    """

    dimensions: int | None = None
    normalize: bool | None = None
    prompt: str | None = None
    prompt_name: str | None = None
    input_type: InputType | None = None
    truncate: Truncate | None = None
    max_tokens: int | None = None
    activation: Activation | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One call on one model.

    Attributes:
        items: in the order in which results must come back.
        tasks: several only for a model that does them in one forward pass, such as BGE-M3.
        deadline_s: seconds from submission until `DeadlineExceeded`; None takes the engine's default.
        first_item: what errors count items from; over 0 when the request is a part of a longer list.
        field: the caller's name for its items, for messages: "input", "texts", "documents" ...
        lone: the caller sent one item by itself, not a list.
    """

    items: Seq[Item]
    options: Options = Options()
    tasks: tuple[Task, ...] = ("embed",)
    priority: Priority = "interactive"
    deadline_s: float | None = None
    first_item: int = 0
    field: str = "input"
    lone: bool = False

    def named(self, index: int) -> str:
        """Item `index` (counted from 0 in `items`) in the caller's words: "input[3]", or "input" if it came alone."""
        return self.field if self.lone else f"{self.field}[{self.first_item + index}]"


@dataclass(frozen=True, slots=True)
class Features:
    """What an image or a sound is to the model.

    Attributes:
        arrays: the processor's arrays by name, without a batch axis.
        digest: of the bytes they were made from and of how: equal digests mean equal arrays.
    """

    arrays: Mapping[str, NDArray[Any]]
    digest: bytes


@dataclass(frozen=True, slots=True)
class Sequence:
    """One tokenised item, or one of several that an item became.

    Attributes:
        ids: int32 [tokens], special tokens included.
        outputs: what the forward pass must give for it; if empty, none is run.
        token_types: int32 [tokens] segment ids of a pair, or None for all zero.
        pool_start: first token that pooling sees; over 0 only for models that leave their prompt out.
        truncated: whether tokens were cut off.
        spans: int32 [parts, 2]: first token and the one after the last of each of its parts (`Chunks`), or None.
        features: of its images or its sound.
        size: what it counts for in a batch, where that is not its tokens.
        unattended: how many tokens at its end attend to the others while none attends to them, such as the masks that
            expand a query of ColBERT.
    """

    ids: NDArray[np.int32]
    outputs: tuple[Output, ...] = ("dense",)
    token_types: NDArray[np.int32] | None = None
    pool_start: int = 0
    truncated: bool = False
    spans: NDArray[np.int32] | None = None
    features: Features | None = None
    size: int | None = None
    unattended: int = 0

    @property
    def key(self) -> object:
        """Equal keys mean equal rows: what de-duplication in flight goes by."""
        types = None if self.token_types is None else self.token_types.tobytes()
        digest = None if self.features is None else self.features.digest
        return self.ids.tobytes(), types, self.pool_start, self.outputs, digest, self.unattended

    def __len__(self) -> int:
        return len(self.ids) if self.size is None else self.size


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Sequences laid end to end: no padding.

    Attributes:
        ids: int32 [T].
        positions: int32 [T], counting from 0 in each sequence.
        token_types: int32 [T].
        lengths: int32 [B], summing to T.
        pool_starts: int32 [B].
        wanted: outputs that some sequence asks for.
        features: of each sequence [B].
        unattended: int32 [B], `Sequence.unattended`; None if it is 0 for all.
    """

    ids: NDArray[np.int32]
    positions: NDArray[np.int32]
    token_types: NDArray[np.int32]
    lengths: NDArray[np.int32]
    pool_starts: NDArray[np.int32]
    wanted: frozenset[Output] = frozenset(("dense",))
    features: tuple[Features | None, ...] = ()
    unattended: NDArray[np.int32] | None = None

    @classmethod
    def pack(cls, sequences: Seq[Sequence]) -> PackedBatch:
        """Lay the sequences end to end, in the order given. Each must have at least one token."""
        lengths = np.array([len(s.ids) for s in sequences], dtype=np.int32)
        ids = np.concatenate([s.ids for s in sequences]).astype(np.int32, copy=False)
        starts = np.cumsum(lengths, dtype=np.int32) - lengths
        positions = np.arange(len(ids), dtype=np.int32) - np.repeat(starts, lengths)
        token_types = np.zeros(len(ids), dtype=np.int32)
        for sequence, start, length in zip(sequences, starts, lengths, strict=True):
            if sequence.token_types is not None:
                token_types[start : start + length] = sequence.token_types
        pool_starts = np.array([s.pool_start for s in sequences], dtype=np.int32)
        wanted = frozenset(output for s in sequences for output in s.outputs)
        features = tuple(s.features for s in sequences)
        unattended = None
        if any(s.unattended for s in sequences):
            unattended = np.array([s.unattended for s in sequences], dtype=np.int32)
        return cls(ids, positions, token_types, lengths, pool_starts, wanted, features, unattended)

    @property
    def starts(self) -> NDArray[np.int32]:
        """int32 [B]: where each sequence begins."""
        return np.cumsum(self.lengths, dtype=np.int32) - self.lengths

    @property
    def tokens(self) -> int:
        return len(self.ids)

    def __len__(self) -> int:
        return len(self.lengths)


Outputs: TypeAlias = Mapping[Output, NDArray[np.float32]]
"""What the forward pass gave for one sequence: the outputs it asked for, by name. Never written to."""


@dataclass(frozen=True, slots=True)
class Row:
    """One computed sequence."""

    sequence: Sequence
    outputs: Outputs


class SparseVector(NamedTuple):
    """int32 [n] ascending ids of vocabulary terms, and float32 [n] their weights, none of them zero."""

    indices: NDArray[np.int32]
    values: NDArray[np.float32]


class Timing(NamedTuple):
    """Where the time of a request went, in seconds, as means over its sequences.

    Attributes:
        tokenization_s: from admission until it was tokenised.
        queue_s: from then until its forward pass began.
        inference_s: from then until it was computed.
    """

    tokenization_s: float = 0.0
    queue_s: float = 0.0
    inference_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """What a request gives back, in the order of its items; a field that no task of the request fills is empty.

    Attributes:
        token_counts: int32 [items], what was really computed: special tokens, prompts and both sides of pairs count.
        truncated: indices of the items that lost tokens.
        vectors: float32 [items, dimensions]; a `Chunks` item has a row for each of its texts.
        sparse: one per item.
        multi_vectors: float32 [tokens, dimensions] per item; also of the task "tokens".
        scores: float32 [items].
        labels: float32 [items, labels], in the order of `ModelCard.labels`.
        timing: where the time went.
    """

    token_counts: NDArray[np.int32]
    truncated: tuple[int, ...] = ()
    vectors: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    sparse: tuple[SparseVector, ...] = ()
    multi_vectors: tuple[NDArray[np.float32], ...] = ()
    scores: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    labels: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    timing: Timing = field(default_factory=Timing)

    @classmethod
    def of(cls, items: Seq[Seq[Row]], **fields: Any) -> Result:
        """The result of items with the rows of their sequences; counts are made from those."""
        counts = np.array([sum(len(row.sequence) for row in rows) for rows in items], dtype=np.int32)
        cut = tuple(place for place, rows in enumerate(items) if any(row.sequence.truncated for row in rows))
        return cls(counts, cut, **fields)


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a served model can do: shown by `/v1/models` and `lemni models show`.

    Attributes:
        name: what clients ask for.
        model_id: hub id, folder or package it was loaded from.
        tasks: what it can be asked for.
        modalities: what its items can be.
        labels: names of what it classifies into.
        dimensions: length of a vector, or of each row of a multi-vector, without the `dimensions` option; None for a
            model that gives none.
        max_length: tokens of the longest input.
        matryoshka_dimensions: sizes the model was trained for; empty if its files do not say.
        prompts: prompt names and texts.
        similarity: the function that its vectors are meant for.
        parameters: number of weights.
        truncate: what happens to items over `max_length` when a request does not say.
        pooling: how the tokens' states become a dense vector, modes joined by "+"; "" where none does.
    """

    name: str
    model_id: str
    revision: str | None
    source: str
    architecture: str
    tasks: tuple[Task, ...]
    modalities: tuple[Modality, ...]
    labels: tuple[str, ...]
    dimensions: int | None
    max_length: int
    vocabulary: int
    matryoshka_dimensions: tuple[int, ...]
    prompts: dict[str, str]
    default_prompt_name: str | None
    similarity: str
    normalized: bool
    runtime: str
    device: str
    dtype: str
    parameters: int
    truncate: Truncate = "right"
    pooling: str = ""
