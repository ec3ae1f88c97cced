"""What a group of transformers' classes is to the runtime of text with images or sound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lemni.types import Output

if TYPE_CHECKING:
    import torch


class Adapter(Protocol):
    """A model on one device.

    Attributes:
        output: the one thing it gives.
        max_positions: tokens of the longest text, or None.
        pad_id: what texts are padded with.
    """

    output: Output
    max_positions: int | None
    pad_id: int

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor, arrays: dict[str, torch.Tensor]) -> torch.Tensor:
        """Compute sequences of one modality.

        Args:
            ids: int64 [G, width].
            mask: int64 [G, width], 1 where a token stands.
            arrays: of their images or sounds, [G, ...] each; empty for texts.

        Returns:
            [G, dim], or [G, width, dim] if the output has a row per token.
        """
        ...
