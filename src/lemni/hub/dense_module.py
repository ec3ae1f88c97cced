"""Reads the folder of one Dense module of sentence-transformers or PyLate.

Called for what a model puts after its pooling, and for the projection of late-interaction models. Pickled weights are
refused. Reference: sentence-transformers, `base/modules/dense.py`.
"""

from __future__ import annotations

from pathlib import Path

from lemni.errors import ModelLoadError
from lemni.hub.jsonfile import read_json
from lemni.hub.spec import DenseLayer
from lemni.hub.weights import weight_files


def read_dense(path: Path, features: tuple[str, ...], notes: list[str]) -> DenseLayer:
    """The layer in a folder.

    Args:
        features: what it may read and write, such as "sentence_embedding".
        notes: gets a sentence if a guess is made.

    Raises:
        ModelLoadError: a file is missing or broken, or it works on something else.
    """
    file = path / "config.json"
    config = read_json(file)
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, *features):
            raise ModelLoadError(
                f"{file}: Dense with {key} {config[key]!r} is not supported, only {' or '.join(features)}"
            )
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    if not activation.startswith("torch."):
        notes.append(f"{file}: the activation {activation!r} is not torch's; Tanh is used instead")
        activation = "Tanh"
    weights = weight_files(path, "safetensors")
    if not weights:
        pickled = weight_files(path, "pickle")
        hint = (
            f": only {pickled[0].name} is there, and pickled Dense layers are not loaded, "
            "not even with --trust-pickle; save the model with safetensors"
            if pickled
            else ""
        )
        raise ModelLoadError(f"{path}: no model.safetensors for the Dense module{hint}")
    try:
        sizes = int(config["in_features"]), int(config["out_features"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelLoadError(f"{file}: in_features and out_features must be numbers: {error}") from error
    bias, residual = bool(config.get("bias", True)), bool(config.get("use_residual", False))
    return DenseLayer(weights[0], *sizes, bias, activation.rpartition(".")[2], residual)
