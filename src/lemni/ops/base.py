"""The operations that model families use, as protocols.

Tensors are opaque here: torch tensors computed at once, or nodes of an OpenVINO graph. Those of floats support
`+ - * /` with each other (a number enters through `constant`), those of integers only choose rows in `embedding`.
`T` is the number of tokens of the packed batch, `B` of its sequences, and the token axis always comes first: there is
no padding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from typing import Any, Protocol, TypeAlias, TypeVar

from lemni.errors import ModelLoadError
from lemni.hub.codes import Weight
from lemni.ops.plan import FULL, Buckets, Window

Tensor: TypeAlias = Any

OwnInputs: TypeAlias = Any
"""`Inputs` made by the same array library as the `Ops` that they are given to."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Inputs(Protocol):
    """One packed batch, as tensors.

    Attributes:
        ids: int [T].
        positions: int [T], from 0 in each sequence.
        token_types: int [T].
        places: float32 [T, 1], positions counted from 1.
        lengths: float32 [B, 1].
        pool_mask: float32 [T, 1], 0 for the tokens before `pool_start` of their sequence, else 1.
    """

    @property
    def ids(self) -> Tensor: ...
    @property
    def positions(self) -> Tensor: ...
    @property
    def token_types(self) -> Tensor: ...
    @property
    def places(self) -> Tensor: ...
    @property
    def lengths(self) -> Tensor: ...
    @property
    def pool_mask(self) -> Tensor: ...


class Ops(Protocol):
    """One array library. Weights come in through `constant`, once; everything else runs per batch."""

    def constant(self, array: Weight) -> Tensor:
        """A weight. Floats take the computation's precision; a float32 array is not copied on CPU. Codes may stay
        codes, for `embedding` and as the weight of `linear`; elsewhere they become floats."""
        ...

    def embedding(self, table: Tensor, ids: Tensor) -> Tensor:
        """Rows of `table` [N, D] by `ids` int [T] -> [T, D]."""
        ...

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """x W^T + b, weight [out, in] -> [..., out]. Computed in the weight's precision."""
        ...

    def layer_norm(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        """Over the last axis."""
        ...

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x / sqrt(mean(x^2) + eps) * weight over the last axis, the mean in float32."""
        ...

    def activation(self, x: Tensor, name: str) -> Tensor:
        """By transformers' name (`hidden_act`): see ACTIVATIONS. Raises ModelLoadError for another."""
        ...

    def split(self, x: Tensor, sizes: Seq[int]) -> list[Tensor]:
        """Cut the last axis."""
        ...

    def concat(self, xs: Seq[Tensor]) -> Tensor:
        """Join on the last axis."""
        ...

    def heads(self, x: Tensor, count: int) -> Tensor:
        """[T, count * D] -> [T, count, D]."""
        ...

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
        """Rotary position embedding (RoFormer, arXiv:2104.09864) of x [T, heads, D] by cos and sin [T, D].

        Halves are rotated as GPT-NeoX does; `interleaved` rotates neighbours (x0, x1) as GPT-J does. The tables
        hold D values in the same layout. If the tables are narrower than D, the rest of x passes through.
        """
        ...

    def attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        inputs: OwnInputs,
        *,
        scale: float,
        window: Window = FULL,
        bias: Tensor | None = None,
    ) -> Tensor:
        """softmax(scale q k^T + bias) v, each sequence by itself.

        Args:
            query: [T, heads, D].
            key, value: [T, kv_heads, D]; each serves heads / kv_heads query heads in turn.
            window: who sees whom, by distance.
            bias: from `relative_bias`.

        Returns:
            [T, heads * D].
        """
        ...

    def relative_bias(self, table: Tensor, inputs: OwnInputs) -> Tensor:
        """An attention bias that depends only on the distance key - query.

        Args:
            table: constant [heads, 2N - 1]; column `distance + N - 1`. Distances beyond are clipped.
        """
        ...

    def disentangled_attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        inputs: OwnInputs,
        *,
        scale: float,
        position_keys: Tensor | None,
        position_queries: Tensor | None,
        buckets: Buckets,
    ) -> Tensor:
        """DeBERTa's attention (arXiv:2006.03654, eq. 4), each sequence by itself: softmax(scale s) v, where s of query
        i and key j is q_i k_j + q_i K_b + k_j Q_b, and b is the bucket of the distance j - i.

        Args:
            query, key, value: [T, heads, D].
            position_keys: K, constant [heads, N, D]: content to position; None leaves its term out.
            position_queries: Q, the same: position to content.
            buckets: rows of K and Q by distance, 0..N - 1.

        Returns:
            [T, heads * D].
        """
        ...

    def neighbours(self, x: Tensor, inputs: OwnInputs) -> Tensor:
        """[T, D] -> [T, 3 * D]: the token before, the token and the one after, zeros where a sequence has none.

        A linear layer on it is a convolution of width 3 with padding, sequence by sequence.
        """
        ...

    def segment_sum(self, x: Tensor, inputs: OwnInputs) -> Tensor:
        """[T, D] -> float32 [B, D]: over the tokens of each sequence. A long text's sum overflows float16."""
        ...

    def segment_max(self, x: Tensor, inputs: OwnInputs) -> Tensor:
        """[T, D] -> [B, D]."""
        ...

    def first(self, x: Tensor, inputs: OwnInputs) -> Tensor:
        """[T, D] -> [B, D]: the token at `pool_start` of each sequence."""
        ...

    def last(self, x: Tensor, inputs: OwnInputs) -> Tensor:
        """[T, D] -> [B, D]: the last token of each sequence."""
        ...

    def square_root(self, x: Tensor) -> Tensor:
        """Of every value."""
        ...

    def log1p(self, x: Tensor) -> Tensor:
        """log(1 + x) of every value."""
        ...


ACTIVATIONS = (
    "gelu",
    "gelu_new",
    "gelu_fast",
    "gelu_pytorch_tanh",
    "quick_gelu",
    "relu",
    "silu",
    "swish",
    "tanh",
    "sigmoid",
    "linear",
)
"""Names that `Ops.activation` knows; gelu_new, gelu_fast and gelu_pytorch_tanh are one function."""


def activation_named(name: str, table: Mapping[str, _Function]) -> _Function:
    """One library's function for a name of ACTIVATIONS. Raises ModelLoadError for another name."""
    if name not in table:
        raise ModelLoadError(f"unknown activation {name!r}; known: {', '.join(ACTIVATIONS)}")
    return table[name]
