"""How arrays are computed. The table holds names only: a runtime is imported when a model is given to it."""

from __future__ import annotations

from importlib import import_module

from lemni.errors import ConfigError, missing_extra
from lemni.runtimes.base import Backend, BackendOptions, Blueprint

# Name -> module and class; a class is called with (Blueprint, BackendOptions).
RUNTIMES: dict[str, tuple[str, str]] = {
    "openvino": ("openvino", "OpenVINOBackend"),
    "torch": ("torch", "TorchBackend"),
    "transformers": ("transformers", "TransformersBackend"),
    "onnx": ("onnx", "ONNXBackend"),
    "static": ("static", "StaticBackend"),
    "multimodal": ("multimodal", "MultimodalBackend"),
}


def open_backend(name: str, blueprint: Blueprint, options: BackendOptions) -> Backend:
    """Load a model on the runtime `name`.

    Raises:
        ConfigError: no such runtime.
        ModelLoadError: the model does not fit it.
        MissingExtra: a package that it needs is not installed.
    """
    if name not in RUNTIMES:
        raise ConfigError(f"unknown runtime {name!r}; known: {', '.join(RUNTIMES)}")
    module, attribute = RUNTIMES[name]
    try:
        backend_class = getattr(import_module(f"lemni.runtimes.{module}"), attribute)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise missing_extra("torch", "torch", f"the {name} runtime") from None
    backend: Backend = backend_class(blueprint, options)
    return backend
