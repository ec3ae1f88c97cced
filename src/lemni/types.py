"""The words every layer shares: what is asked for, what is computed, what comes back.

A *request* holds *items*; tokenising turns an item into a *sequence*; sequences are packed into a
*batch* without padding. Arrays are numpy until a dialect writes bytes. Knows no I/O and no model.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Item: TypeAlias = str | Seq[int]
"""One input: a text, or the token ids of one text in the served model's vocabulary (special tokens included)."""

Priority: TypeAlias = Literal["interactive", "bulk"]
TruncationSide: TypeAlias = Literal["left", "right"]
Truncate: TypeAlias = Literal["right", "left", "error"]
"""What happens to a text over the model's length: cut at its end, at its start, or refused."""


@dataclass(frozen=True, slots=True)
class EmbedOptions:
    """How items become vectors. None always means the model's or the server's own default.

    Attributes:
        dimensions: keep the first N values and normalise again (Matryoshka); 1..model dimension.
        normalize: unit length or raw; default is what the model's own modules do.
        prompt: text put before every item; wins over `prompt_name`.
        prompt_name: key of the model's `prompts`, such as "query" or "document".
        truncate: what to do with items over the model's length.
    """

    dimensions: int | None = None
    normalize: bool | None = None
    prompt: str | None = None
    prompt_name: str | None = None
    truncate: Truncate | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One call on one model.

    Attributes:
        items: in the order in which results must come back.
        deadline_s: seconds from submission until `DeadlineExceeded`; None takes the engine's default.
        first_item: what errors count items from; over 0 when the request is a part of a longer list.
    """

    items: Seq[Item]
    options: EmbedOptions = field(default_factory=EmbedOptions)
    priority: Priority = "interactive"
    deadline_s: float | None = None
    first_item: int = 0


@dataclass(frozen=True, slots=True)
class Sequence:
    """One tokenised item.

    Attributes:
        ids: int32 [tokens], special tokens included.
        token_types: int32 [tokens] segment ids of a pair, or None for all zero.
        pool_start: first token that pooling sees; over 0 only for models that leave their prompt out.
        truncated: whether tokens were cut off.
    """

    ids: NDArray[np.int32]
    token_types: NDArray[np.int32] | None = None
    pool_start: int = 0
    truncated: bool = False

    @property
    def key(self) -> tuple[bytes, bytes | None, int]:
        """Equal keys mean equal results: what de-duplication in flight goes by."""
        types = None if self.token_types is None else self.token_types.tobytes()
        return self.ids.tobytes(), types, self.pool_start

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Sequences laid end to end: no padding.

    Attributes:
        ids: int32 [T].
        positions: int32 [T], counting from 0 in each sequence.
        token_types: int32 [T].
        lengths: int32 [B], summing to T.
        pool_starts: int32 [B].
    """

    ids: NDArray[np.int32]
    positions: NDArray[np.int32]
    token_types: NDArray[np.int32]
    lengths: NDArray[np.int32]
    pool_starts: NDArray[np.int32]

    @classmethod
    def pack(cls, sequences: Seq[Sequence]) -> PackedBatch:
        """Lay the sequences end to end, in the order given. Each must have at least one token."""
        lengths = np.array([len(s) for s in sequences], dtype=np.int32)
        ids = np.concatenate([s.ids for s in sequences]).astype(np.int32, copy=False)
        starts = np.cumsum(lengths, dtype=np.int32) - lengths
        positions = np.arange(len(ids), dtype=np.int32) - np.repeat(starts, lengths)
        token_types = np.zeros(len(ids), dtype=np.int32)
        for sequence, start, length in zip(sequences, starts, lengths, strict=True):
            if sequence.token_types is not None:
                token_types[start : start + length] = sequence.token_types
        pool_starts = np.array([s.pool_start for s in sequences], dtype=np.int32)
        return cls(ids, positions, token_types, lengths, pool_starts)

    @property
    def starts(self) -> NDArray[np.int32]:
        """int32 [B]: where each sequence begins."""
        return np.cumsum(self.lengths, dtype=np.int32) - self.lengths

    @property
    def tokens(self) -> int:
        return len(self.ids)

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """What a request for dense vectors gives back.

    Attributes:
        vectors: float32 [items, dimensions], in the order of the request's items.
        token_counts: int32 [items], what was really computed (special tokens and prompt included).
        truncated: indices of the items that lost tokens.
    """

    vectors: NDArray[np.float32]
    token_counts: NDArray[np.int32]
    truncated: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a served model can do: shown by `/v1/models` and `lemni models show`.

    Attributes:
        name: what clients ask for.
        model_id: hub id, folder or package it was loaded from.
        dimensions: length of a vector without the `dimensions` option.
        max_length: tokens of the longest input.
        matryoshka_dimensions: sizes the model was trained for; empty if its files do not say.
        prompts: prompt names and texts.
        similarity: the function that its vectors are meant for.
        parameters: number of weights.
    """

    name: str
    model_id: str
    revision: str | None
    source: str
    architecture: str
    task: str
    dimensions: int
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
