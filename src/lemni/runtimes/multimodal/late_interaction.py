"""Pages as many vectors: ColPali, ColQwen2, ColQwen2.5, ColModernVBert (arXiv:2407.01449).

Reference: `forward` of transformers' `...ForRetrieval` classes, whose rows have unit length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lemni.errors import ModelLoadError
from lemni.hub.spec import ModelSpec
from lemni.runtimes.base import BackendOptions
from lemni.runtimes.transformers import load_pretrained
from lemni.types import Output

if TYPE_CHECKING:
    import torch

LATE_INTERACTION = {
    "colpali": "ColPaliForRetrieval",
    "colqwen2": "ColQwen2ForRetrieval",  # also ColQwen2.5, whose `vlm_config` is another
    "colmodernvbert": "ColModernVBertForRetrieval",
}
"""`model_type` -> transformers' class."""


class LateInteraction:
    """See `lemni.runtimes.multimodal.base.Adapter`."""

    output: Output = "multi_vector"

    def __init__(self, spec: ModelSpec, options: BackendOptions, dtype: torch.dtype, device: torch.device) -> None:
        import transformers

        name = LATE_INTERACTION[spec.model_type]
        loader = getattr(transformers, name, None)
        if loader is None:
            raise ModelLoadError(f"{spec.files.id} needs a newer transformers: this one has no {name}")
        self._model: Any = load_pretrained(loader, spec, options, dtype).to(device)
        text = self._model.config.get_text_config()
        if getattr(text, "use_cache", False):
            text.use_cache = False  # nothing is generated
        self.pad_id = text.pad_token_id or 0
        self.max_positions: int | None = text.max_position_embeddings
        # PaliGemma attends both ways only where the token types say so.
        self._needs_types = spec.model_type == "colpali"

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor, arrays: dict[str, torch.Tensor]) -> torch.Tensor:
        import torch

        types = {"token_type_ids": torch.zeros_like(ids)} if self._needs_types else {}
        vectors: torch.Tensor = self._model(input_ids=ids, attention_mask=mask, **types, **arrays).embeddings
        return vectors
