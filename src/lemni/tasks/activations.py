"""What is applied to the logits of a classifier: by a request's choice, or as the model's reference does.

Reference: sentence-transformers, `CrossEncoder.get_default_activation_fn`, for scores; transformers,
`TextClassificationPipeline.postprocess`, for labels. Called by `lemni.tasks.classifier`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lemni.errors import ModelLoadError
from lemni.hub.jsonfile import read_json
from lemni.hub.spec import ModelSpec
from lemni.types import Activation

logger = logging.getLogger(__name__)

Logits: TypeAlias = NDArray[np.float32]
Function: TypeAlias = Callable[[Logits], Logits]
"""float32 [items, labels] -> the same shape."""


def _sigmoid(x: Logits) -> Logits:
    small = np.exp(-np.abs(x))  # never overflows, and keeps tiny probabilities apart
    result: Logits = np.where(x >= 0, 1, small) / (1 + small)
    return result


def _softmax(x: Logits) -> Logits:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    result: Logits = powers / powers.sum(axis=-1, keepdims=True)
    return result


ACTIVATIONS: dict[Activation, Function] = {"none": lambda x: x, "sigmoid": _sigmoid, "softmax": _softmax}
"""Those that a request can choose."""

# Classes of torch.nn that a model's files can name.
_CLASSES: dict[str, Function] = {
    "Identity": ACTIVATIONS["none"],
    "Sigmoid": _sigmoid,
    "Softmax": _softmax,
    "Tanh": np.tanh,
    "ReLU": lambda x: np.maximum(x, 0),
}


def score_activation(spec: ModelSpec) -> Function:
    """Of a model with one label, when it scores: what its files name, else the sigmoid.

    Raises:
        ModelLoadError: a class of torch that is unknown here.
    """
    for path in _named(spec):
        if path.startswith("torch."):
            name = path.rpartition(".")[2]
            if name not in _CLASSES:
                raise ModelLoadError(
                    f"{spec.files.id}: the activation {path!r} is not supported, only {', '.join(_CLASSES)} of torch.nn"
                )
            return _CLASSES[name]
        logger.warning("%s: the activation %r is not torch's; the next best is used", spec.files.id, path)
    return _sigmoid


def _named(spec: ModelSpec) -> list[str]:
    """Activations that the model's files name, the one that counts first."""
    found = []
    root = spec.files.path
    if (root / "modules.json").is_file():
        config = _json(root / "config_sentence_transformers.json")
        if config.get("model_type") == "CrossEncoder":
            found.append(config.get("activation_fn"))
    inside = spec.config.get("sentence_transformers")
    if isinstance(inside, dict) and "activation_fn" in inside:
        found.append(inside["activation_fn"])
    else:  # before sentence-transformers 4
        found.append(spec.config.get("sbert_ce_default_activation_function"))
    return [path for path in found if isinstance(path, str)]


def _json(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


def label_activation(config: Mapping[str, Any], labels: int) -> Function:
    """Of a model that classifies: by `problem_type`, else sigmoid for one label and softmax for several."""
    problem = config.get("problem_type")
    if problem == "regression":
        return ACTIVATIONS["none"]
    return _sigmoid if problem == "multi_label_classification" or labels == 1 else _softmax
