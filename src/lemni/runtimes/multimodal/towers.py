"""Two towers that meet in one space: CLIP, SigLIP, SigLIP 2, Chinese CLIP (text, image) and CLAP (text, sound).

References: `get_text_features`, `get_image_features` and `get_audio_features` of transformers' classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lemni.hub.spec import ModelSpec
from lemni.runtimes.base import BackendOptions
from lemni.runtimes.transformers import load_pretrained
from lemni.types import Output

if TYPE_CHECKING:
    import torch

TOWERS = {
    "clip": "CLIPModel",
    "siglip": "SiglipModel",
    "siglip2": "Siglip2Model",
    "chinese_clip": "ChineseCLIPModel",
    "clap": "ClapModel",
}
"""`model_type` -> transformers' class."""

# Trained without an attention mask: texts come padded to one length, and padding is read like any token.
_NO_MASK = frozenset({"siglip", "siglip2"})
# Positions are counted from the padding id plus one, as in RoBERTa.
_RESERVED_POSITIONS = frozenset({"clap"})


class Towers:
    """See `lemni.runtimes.multimodal.base.Adapter`. The rows are not normalised."""

    output: Output = "dense"

    def __init__(self, spec: ModelSpec, options: BackendOptions, dtype: torch.dtype, device: torch.device) -> None:
        import transformers

        loader = getattr(transformers, TOWERS[spec.model_type])
        self._model: Any = load_pretrained(loader, spec, options, dtype).to(device)
        self._masked = spec.model_type not in _NO_MASK
        text = self._model.config.text_config
        pad = text.pad_token_id
        # SigLIP's default for it is no id of its own vocabulary.
        self.pad_id = pad if isinstance(pad, int) and 0 <= pad < text.vocab_size else 0
        reserved = self.pad_id + 1 if spec.model_type in _RESERVED_POSITIONS else 0
        self.max_positions: int | None = text.max_position_embeddings - reserved

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor, arrays: dict[str, torch.Tensor]) -> torch.Tensor:
        if "pixel_values" in arrays:
            found = self._model.get_image_features(**arrays)
        elif arrays:
            found = self._model.get_audio_features(**arrays)
        elif self._masked:
            found = self._model.get_text_features(input_ids=ids, attention_mask=mask)
        else:
            found = self._model.get_text_features(input_ids=ids)
        # transformers 5 gives an output with the projected vectors in it, 4 the vectors.
        vectors: torch.Tensor = getattr(found, "pooler_output", found)
        return vectors
