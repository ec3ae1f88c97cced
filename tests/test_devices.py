"""The choice of devices and precisions, on a machine without a GPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lemni.devices import choose_devices, choose_dtype
from lemni.errors import ConfigError


@pytest.mark.parametrize("wanted", ["cpu", "CPU", " cpu "])
def test_cpu(wanted: str) -> None:
    assert choose_devices(wanted, "auto") == ("cpu",)


@pytest.mark.parametrize("wanted", ["cpu:0", "cpu,cpu", "cuda:0,cpu", "meta", "xpu", "cuda:x", "gpu", "cuda:-1", ""])
def test_other_devices_are_refused(wanted: str) -> None:
    with pytest.raises(ConfigError, match="is unknown; use auto, cpu, cuda"):
        choose_devices(wanted, "auto")


def test_a_gpu_that_is_not_there() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="torch sees 0 CUDA"):
            choose_devices("cuda:3", "auto")
    assert choose_devices("auto", "openvino") == ("cpu",)
    if not Path("/dev/nvidiactl").exists():
        assert choose_devices("auto", "auto") == ("cpu",)


@pytest.mark.parametrize(
    ("config", "model_type", "has_bf16", "dtype"),
    [
        ({"torch_dtype": "bfloat16"}, "qwen3", True, "bfloat16"),
        ({"torch_dtype": "bfloat16"}, "qwen3", False, "float32"),
        ({"dtype": "float32"}, "gemma3_text", True, "bfloat16"),
        ({"dtype": "float16"}, "mistral", True, "float16"),
        ({"dtype": "float32"}, "bert", True, "float16"),
        ({}, "modernbert", False, "float16"),
    ],
)
def test_precision_on_a_gpu(
    config: dict[str, Any], model_type: str, has_bf16: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has_bf16)
    spec: Any = SimpleNamespace(config=config, model_type=model_type)
    assert choose_dtype("auto", spec) == dtype
    assert choose_dtype("float32", spec) == "float32"
