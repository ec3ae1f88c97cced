"""Variables without a prefix: what they stand for, what wins over them, and what makes no sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from lemni.cli.settings import load_settings
from lemni.config import DEFAULT_MODEL


def test_each_stands_for_a_setting() -> None:
    settings = load_settings(
        {},
        {
            "EMBEDDING_MODEL": "all-mpnet-base-v2",
            "DEVICE": "cpu",
            "BATCH_SIZE": "32",
            "MAX_SEQ_LENGTH": "200",
            "HOST": "0.0.0.0",
            "PORT": "8001",
            "QUANTIZATION": "FP32",
        },
        plain=True,
    )
    [model] = settings.models
    assert model.model == "sentence-transformers/all-mpnet-base-v2"
    assert (model.device, model.max_length, model.dtype) == ("cpu", 200, "float32")
    assert (settings.server.host, settings.server.port) == ("0.0.0.0", 8001)


def test_only_where_asked_for() -> None:
    settings = load_settings({}, {"EMBEDDING_MODEL": "x/y", "PORT": "8001"})
    assert (settings.models[0].model, settings.server.port) == (DEFAULT_MODEL, 7997)


def test_everything_else_wins(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("PORT=1\nHOST=127.0.0.2\nEMBEDDING_MODEL=a/dotted\n")
    yaml = tmp_path / "lemni.yaml"
    yaml.write_text("host: 127.0.0.3\n")
    environ = {"LEMNI_PORT": "3", "PORT": "2", "EMBEDDING_MODEL": "a/variable"}
    settings = load_settings({}, environ, dotenv, yaml, plain=True)
    assert (settings.server.port, settings.server.host) == (3, "127.0.0.3")
    assert settings.models[0].model == "a/variable"
    assert load_settings({"models": ("a/flag",)}, environ, dotenv, yaml, plain=True).models[0].model == "a/flag"
    assert load_settings({}, {}, dotenv, plain=True).models[0].model == "a/dotted"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("HOST", "my-laptop", "an address such as 0.0.0.0"),
        ("PORT", "tcp://10.0.0.1:80", "a whole number"),
        ("DEVICE", "toaster", "cpu, cuda or cuda:N"),
        ("QUANTIZATION", "int3", "fp32, fp16, bf16, int8 or fp8"),
    ],
)
def test_nonsense_is_a_warning(name: str, value: str, says: str, caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings({}, {name: value}, plain=True)
    assert says in caplog.text
    default = load_settings({}, {})
    assert settings.server == default.server
    assert settings.models[0].device == default.models[0].device


def test_a_gpu_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    if Path("/dev/nvidiactl").exists():
        assert load_settings({}, {"DEVICE": "cuda"}, plain=True).models[0].device == "cuda"
    else:
        assert load_settings({}, {"DEVICE": "cuda"}, plain=True).models[0].device == "cpu"
        assert "there is no GPU" in caplog.text


def test_int8_where_there_is_no_gpu(caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings({}, {"QUANTIZATION": "INT8"}, plain=True)
    if Path("/dev/nvidiactl").exists():
        assert settings.models[0].dtype == "float32"
        assert "that is for CPUs" in caplog.text
    else:
        assert settings.models[0].dtype == "int8"


def test_fp16_without_a_gpu_is_done_and_said_to_save_no_time(caplog: pytest.LogCaptureFixture) -> None:
    if not Path("/dev/nvidiactl").exists():
        settings = load_settings({}, {"QUANTIZATION": "fp16"}, plain=True)
        assert settings.models[0].dtype == "float16"
        assert "CPUs compute in fp32: the weights are rounded" in caplog.text


def test_fp8_where_there_is_no_gpu(caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings({}, {"QUANTIZATION": "fp8"}, plain=True)
    if Path("/dev/nvidiactl").exists():
        assert settings.models[0].dtype == "fp8"
    else:
        assert settings.models[0].dtype == "float32"
        assert "that is for GPUs" in caplog.text
