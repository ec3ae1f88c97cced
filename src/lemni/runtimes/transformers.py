"""Any architecture that transformers knows: its own model code, fed from packed batches.

Such code wants rectangles, so sequences of like length are padded to groups here, always on the right under an
attention mask, and their hidden states are packed again. The head is the same as on every runtime, except that
sequence classification is transformers' class as a whole. Needs the extra `torch`. Families that Lemni has itself are
faster on `lemni.runtimes.torch`.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lemni.errors import ModelLoadError, missing_extra
from lemni.hub.spec import ModelSpec
from lemni.ops.torch import TorchInputs, TorchOps
from lemni.runtimes.base import BackendOptions, Blueprint, by_sequence
from lemni.runtimes.padding import Rectangle, rectangles
from lemni.runtimes.torch_backend import DeviceBackend
from lemni.runtimes.torch_devices import run_heads, torch_limits
from lemni.types import Output, Outputs, PackedBatch

# Encoder-decoders whose encoder alone gives the token vectors, as in sentence-transformers.
_ENCODER_CLASSES = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
# Kinds of models whose head is a part of transformers' class, which gives one row of logits per sequence.
_WHOLE_CLASSES = {"classifier": "AutoModelForSequenceClassification"}
# Modules with learned absolute positions, by the names that transformers gives them.
_POSITION_TABLES = ("position_embeddings", "embed_positions", "wpe")


class TransformersBackend(DeviceBackend):
    """A model of transformers on one or several torch devices.

    Raises:
        MissingExtra: transformers is not installed.
        ModelLoadError: transformers does not know the architecture, or the weights do not fit it.
    """

    def __init__(self, blueprint: Blueprint, options: BackendOptions) -> None:
        check_transformers("the transformers runtime")
        super().__init__("transformers", options, lambda device, dtype: _Model(blueprint, options, device, dtype))


def check_transformers(needed_for: str) -> None:
    """Raises MissingExtra if transformers, or the torch below it, cannot be imported."""
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise missing_extra(error.name or "transformers", "torch", needed_for) from None


class _Model:
    """A model of transformers on one device, with Lemni's heads where it does not have its own."""

    def __init__(self, blueprint: Blueprint, options: BackendOptions, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        self._cells = torch_limits(options).batch_tokens
        self._model = _load(blueprint.spec, options, dtype).to(device)
        ops = TorchOps(device, dtype)
        whole = blueprint.spec.kind in _WHOLE_CLASSES
        self._heads = {} if whole else {name: make(ops) for name, make in blueprint.heads.items()}
        self._pad_id = _pad_id(self._model)
        self._takes_token_types = "token_type_ids" in inspect.signature(self._model.forward).parameters
        self.outputs: frozenset[Output] = frozenset(blueprint.heads)
        self.max_positions = _max_positions(self._model)

    def __call__(self, batch: PackedBatch) -> list[Outputs]:
        if not self._heads:
            return by_sequence({"logits": self._logits(batch)}, batch)
        hidden, inputs = self._hidden(batch), TorchInputs(batch, self._device, self._dtype)
        return by_sequence(run_heads(self._heads, hidden, inputs, batch), batch)

    def _hidden(self, batch: PackedBatch) -> torch.Tensor:
        """Hidden states [T, hidden] in the batch's order."""
        packed: torch.Tensor | None = None
        for rectangle in rectangles(batch, self._cells):
            padded = self._hidden_states(batch, rectangle)
            if packed is None:
                packed = padded.new_empty((batch.tokens, padded.shape[-1]))
            mask = torch.from_numpy(rectangle.mask).to(self._device)
            packed[torch.from_numpy(rectangle.tokens).to(self._device)] = padded[mask]
        assert packed is not None  # a batch has sequences
        return packed

    def _logits(self, batch: PackedBatch) -> NDArray[np.float32]:
        """Logits [B, labels] in the batch's order."""
        # One sequence at a time where there is no padding token: decoders refuse a batch then.
        cells = 1 if getattr(self._model.config, "pad_token_id", None) is None else self._cells
        logits: NDArray[np.float32] | None = None
        for rectangle in rectangles(batch, cells):
            found = self._forward(batch, rectangle).logits
            if logits is None:
                logits = np.empty((len(batch), found.shape[-1]), dtype=np.float32)
            logits[rectangle.sequences] = found.float().cpu().numpy()
        assert logits is not None  # a batch has sequences
        return logits

    def _hidden_states(self, batch: PackedBatch, rectangle: Rectangle) -> torch.Tensor:
        """[G, width, hidden] of one rectangle."""
        output = self._forward(batch, rectangle)
        hidden: torch.Tensor = output.last_hidden_state if hasattr(output, "last_hidden_state") else output[0]
        if hidden.ndim != 3 or hidden.shape[:2] != rectangle.mask.shape:
            raise ModelLoadError(f"{type(self._model).__name__} gives no vector per token: {tuple(hidden.shape)}")
        return hidden

    def _forward(self, batch: PackedBatch, rectangle: Rectangle) -> Any:
        """What the model gives for one rectangle."""

        def put(array: NDArray[Any]) -> torch.Tensor:
            return torch.from_numpy(array).to(self._device)

        feed = {
            "input_ids": put(rectangle.fill(batch.ids, self._pad_id)),
            "attention_mask": put(rectangle.attended.astype(np.int64)),
        }
        # Only where they say something: GPT-2 adds the embedding of token 0 for a segment id of 0.
        if self._takes_token_types and batch.token_types.any():
            feed["token_type_ids"] = put(rectangle.fill(batch.token_types, 0))
        return self._model(**feed)


def _load(spec: ModelSpec, options: BackendOptions, dtype: torch.dtype) -> Any:
    import transformers

    whole = _WHOLE_CLASSES.get(spec.kind)
    own_class = None if whole else _ENCODER_CLASSES.get(spec.model_type)
    loader = getattr(transformers, whole or own_class or "AutoModel")
    trust = {} if own_class else {"trust_remote_code": options.trust_remote_code}
    # A pooler is no part of the hidden states, and many embedding models are saved without it.
    model = load_pretrained(loader, spec, options, dtype, needless=None if whole else "pooler.", **trust)
    if getattr(model.config, "use_cache", False):
        model.config.use_cache = False  # nothing is generated
    return model


def load_pretrained(
    loader: Any,
    spec: ModelSpec,
    options: BackendOptions,
    dtype: torch.dtype,
    needless: str | None = None,
    **settings: Any,
) -> Any:
    """The model of a folder by a class of transformers, for inference.

    Args:
        needless: what weights that may be missing have in their names.

    Raises:
        ModelLoadError: the weights are pickled and not trusted, or do not fit.
    """
    if not spec.weights and not options.trust_pickle:
        raise ModelLoadError(
            f"{spec.files.id} has no safetensors weights, and pickled ones can run code when they are loaded. "
            "If you trust them: --trust-pickle"
        )
    settings = {"dtype": dtype, "use_safetensors": bool(spec.weights), "local_files_only": True, **settings}
    try:
        model, report = loader.from_pretrained(spec.transformer_path, output_loading_info=True, **settings)
    except Exception as error:  # remote code and converters raise whatever they like; the files are the cause
        raise ModelLoadError(f"{spec.files.id}: transformers cannot load the model: {error}") from error
    missing = sorted(name for name in report["missing_keys"] if needless is None or needless not in f".{name}")
    if missing or report["mismatched_keys"]:
        wrong = missing or sorted(str(key) for key in report["mismatched_keys"])
        raise ModelLoadError(
            f"{spec.files.id}: the weights do not fit {type(model).__name__}: missing or of another shape are "
            f"{', '.join(wrong[:5])}{' ...' if len(wrong) > 5 else ''}"
        )
    return model.eval().requires_grad_(False)


def _pad_id(model: Any) -> int:
    """An id for padding that the embedding table has; RoBERTa and its kin derive positions from it."""
    identity = getattr(model.config, "pad_token_id", None)
    table = model.get_input_embeddings()
    size = getattr(table, "num_embeddings", None)
    return identity if isinstance(identity, int) and identity >= 0 and (size is None or identity < size) else 0


def _max_positions(model: Any) -> int | None:
    """Rows of the table of learned positions that sequences may use, if the model has one."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in _POSITION_TABLES and isinstance(module, torch.nn.Embedding):
            # RoBERTa and its kin count positions from the padding id plus one, BART's from an offset.
            reserved = 0 if module.padding_idx is None else module.padding_idx + 1
            reserved = getattr(module, "offset", reserved)
            return int(module.num_embeddings) - reserved
    return None
