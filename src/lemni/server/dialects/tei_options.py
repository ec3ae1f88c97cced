"""What TEI's fields mean to the engine, and what /info says: the same over HTTP and over gRPC."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lemni import __version__
from lemni.errors import InvalidRequest
from lemni.server.body import kind_of
from lemni.server.dialects.tei_errors import Empty
from lemni.server.service import Service
from lemni.types import Activation, ModelCard, Pair, Truncate, TruncationSide

ModelType = Literal["embedding", "classifier", "reranker"]

# Of ours, those that TEI has a name for; its clients know no others.
_POOLINGS = {"cls": "cls", "lasttoken": "last_token"}


def truncate_of(card: ModelCard, truncate: bool | None, side: TruncationSide | None) -> Truncate | None:
    """What happens to long texts. Without `truncate` the server's setting counts, and `side` only if that one cuts."""
    if truncate is False:
        return "error"
    if truncate is None and (side is None or card.truncate in ("error", "chunk")):
        return None
    return side or "right"


def score_activation(card: ModelCard, raw_scores: bool | None) -> Activation | None:
    """Sigmoid of a cross-encoder's logits, unless they are asked for; other models have scores of their own."""
    if raw_scores:
        return "none"
    return "sigmoid" if "classify" in card.tasks else None


def predict_inputs(value: Any, flat: bool = False) -> tuple[list[str | Pair], bool]:
    """The texts and pairs of /predict, and whether the client sent one by itself: "a", ["a"] or ["a", "b"], which is
    a pair. `flat`: a list of strings is a batch, as Hugging Face's pipelines have it.

    Raises InvalidRequest or Empty.
    """
    if isinstance(value, str):
        return [value], True
    if not isinstance(value, list):
        raise InvalidRequest(
            f"inputs is {kind_of(value)}; it must be a text, a pair or a list of those", param="inputs"
        )
    if not value:
        raise Empty("inputs is an empty list; it must hold at least one text", param="inputs")
    if all(type(one) is str for one in value) and not flat:
        if len(value) > 2:
            raise InvalidRequest(
                f"inputs is a list of {len(value)} texts; a flat list is one pair of texts. "
                'A batch is a list of lists: [["first"], ["second"], ...]',
                param="inputs",
            )
        return [_text_or_pair(value, "inputs", None)], True
    return [_text_or_pair(one, f"inputs[{index}]", index) for index, one in enumerate(value)], False


def _text_or_pair(value: Any, name: str, item: int | None) -> str | Pair:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(type(text) is str for text in texts) or not 1 <= len(texts) <= 2:
        raise InvalidRequest(f"{name} must be a text, or a list of one or two texts", item=item, param=name)
    return texts[0] if len(texts) == 1 else Pair(texts[0], texts[1])


def predictions(card: ModelCard, row: NDArray[np.float32], top_k: int | None = None) -> list[dict[str, Any]]:
    """`score` and `label` of each label, the best first."""
    order = np.argsort(-row, kind="stable")[:top_k]
    return [{"score": float(row[place]), "label": card.labels[place]} for place in order]


def model_type(card: ModelCard) -> ModelType:
    """What the model is to TEI, by what it was made for."""
    types: dict[str, ModelType] = {"score": "reranker", "classify": "classifier"}
    return types.get(card.tasks[0], "embedding")


def info(service: Service, card: ModelCard) -> dict[str, Any]:
    """TEI's fields, and those of a small service (the last five) that has the same route."""
    engine = service.engine
    assert engine is not None
    kind = model_type(card)
    labels = {"id2label": dict(enumerate(card.labels)), "label2id": {name: at for at, name in enumerate(card.labels)}}
    pooling = "splade" if card.tasks[0] == "sparse" else _POOLINGS.get(card.pooling or "", "mean")
    batch_tokens = engine.settings.max_batch_tokens or service.loaded_model(card.name).backend.limits.batch_tokens
    # A folder's path is nobody's business.
    model_id = card.name if card.source == "folder" else card.model_id
    return {
        "model_id": model_id,
        "model_sha": card.revision,
        "model_dtype": card.dtype,
        "served_model_name": card.name,
        "model_type": {kind: {"pooling": pooling} if kind == "embedding" else labels},
        # The queue is bounded in tokens, and no request has less than one.
        "max_concurrent_requests": engine.settings.max_queue_tokens,
        "max_input_length": card.max_length,
        "max_batch_tokens": batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": service.settings.max_items,
        "auto_truncate": card.truncate != "error",
        "tokenization_workers": engine.settings.tokenizer_threads,
        "version": __version__,
        "sha": None,
        "docker_label": None,
        "model_name": card.name,
        "embedding_dimension": card.dimensions,
        "max_seq_length": card.max_length,
        "device": card.device,
        "batch_size": service.settings.max_items,
    }
