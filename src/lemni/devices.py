"""Which devices a model runs on, and in which precision on a GPU, where the settings say "auto"."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from lemni.errors import ConfigError, missing_extra
from lemni.hub import ModelSpec

# Their activations leave float16's range; float16 gives NaN or garbage unless the weights were made for it.
_WIDE_RANGE = frozenset({"colpali", "colqwen2", "gemma3_text", "llama", "mistral", "qwen2", "qwen3"})
_CPU_RUNTIMES = ("openvino", "onnx", "static")


def choose_devices(wanted: str, runtime: str) -> tuple[str, ...]:
    """Devices by name: ("cpu",), or CUDA devices such as ("cuda:0", "cuda:1").

    "auto" is the first GPU if there is one that torch can use and the runtime is not one for CPUs, else the CPU.

    Raises:
        ConfigError: no such device.
        MissingExtra: a GPU is asked for, and torch is not installed.
    """
    names = tuple(name.strip().lower() for name in wanted.split(","))
    if names == ("cpu",) or (names == ("auto",) and runtime in _CPU_RUNTIMES):
        return ("cpu",)
    if names == ("auto",):
        # Importing torch takes a second or two: only where a GPU driver is present.
        if not Path("/dev/nvidiactl").exists() or find_spec("torch") is None:
            return ("cpu",)
        import torch

        return ("cuda:0",) if torch.cuda.is_available() else ("cpu",)
    if bad := [name for name in names if not re.fullmatch(r"cuda(:\d+)?", name)]:
        raise ConfigError(f"device {bad[0]!r} is unknown; use auto, cpu, cuda, cuda:N, or a list such as cuda:0,cuda:1")
    if find_spec("torch") is None:
        raise missing_extra("torch", "torch", f"device {wanted!r}")
    import torch

    devices = tuple("cuda:0" if name == "cuda" else name for name in names)
    for name in devices:
        if int(name.removeprefix("cuda:")) >= torch.cuda.device_count():
            raise ConfigError(f"device {name!r} is not there: torch sees {torch.cuda.device_count()} CUDA device(s)")
    return devices


def choose_dtype(wanted: str, spec: ModelSpec) -> str:
    """The precision on a GPU: as the weights are stored if that is a half, else the half that fits the architecture."""
    if wanted != "auto":
        return wanted
    import torch

    stored = spec.config.get("dtype") or spec.config.get("torch_dtype")
    if stored == "float16" or (stored != "bfloat16" and spec.model_type not in _WIDE_RANGE):
        return "float16"
    return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
