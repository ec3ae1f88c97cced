"""`lemni infinity v2`: Infinity's flags and variables as settings."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from click.testing import CliRunner

from lemni.cli.app import app
from lemni.cli.infinity import settings_of, v2
from lemni.config import Settings
from lemni.errors import ConfigError


def read(flags: dict[str, Any] | None = None, **environ: str) -> Settings:
    content = settings_of(flags or {}, environ)
    content.pop("preload_only")
    return Settings.model_validate(content)


def test_defaults_are_infinitys() -> None:
    settings = read()
    assert (settings.server.host, settings.server.port) == ("0.0.0.0", 7997)
    assert settings.models[0].model == "michaelfeil/bge-small-en-v1.5"
    assert settings.models[0].served_name == "michaelfeil/bge-small-en-v1.5"
    assert settings.server.any_model_name
    assert not settings.models[0].trust_remote_code


def test_several_models_by_flags() -> None:
    settings = read(
        {
            "model_id": ("a/b/one", "c/two"),
            "served_model_name": (),
            "revision": ("main", "v2"),
            "dtype": ("float32",),
            "port": "8000",
        }
    )
    assert [model.served_name for model in settings.models] == ["b/one", "c/two"]
    assert [model.revision for model in settings.models] == ["main", "v2"]
    assert [model.dtype for model in settings.models] == ["float32", "float32"]
    assert settings.server.port == 8000


@pytest.mark.parametrize("command", [["infinity", "v2"], ["infinity"]])
def test_the_names_from_before_v2(command: list[str]) -> None:
    """Whole commands, which fail for what comes after the models."""
    models = ["--model-name-or-path", "a", "--model-id", "b"]
    result = CliRunner().invoke(app, [*command, *models, *["--device", "cpu"] * 3])
    assert result.stderr == "lemni: error: --device is given 3 times for 2 models: once for all, or once for each\n"
    assert v2.make_context("v2", models).params["model_id"] == ("a", "b")


def test_variables_alone_are_a_command() -> None:
    result = CliRunner().invoke(app, ["infinity"], env={"INFINITY_MODEL_ID": "a", "INFINITY_DEVICE": "mps"})
    assert result.stderr == "lemni: error: --device mps is not here: auto, cpu or cuda\n"


def test_help_and_wrong_commands_of_the_group() -> None:
    assert "Commands:" in CliRunner().invoke(app, ["infinity", "--help"]).stdout
    assert "No such command 'v3'" in CliRunner().invoke(app, ["infinity", "v3"]).stderr


def test_variables_and_flags_over_them() -> None:
    environ = {
        "INFINITY_MODEL_ID": "x/one;x/two;",
        "INFINITY_DEVICE": "cpu",
        "INFINITY_TRUST_REMOTE_CODE": "1;false",
        "INFINITY_API_KEY": "secret",
        "INFINITY_URL_PREFIX": "/v1",
        "INFINITY_PORT": "1",
        "INFINITY_LOG_LEVEL": "trace",
    }
    settings = read({"port": "2"}, **environ)
    assert [model.model for model in settings.models] == ["x/one", "x/two"]
    assert [model.trust_remote_code for model in settings.models] == [True, False]
    assert (settings.server.port, settings.server.api_key, settings.server.url_prefix) == (2, "secret", "/v1")
    assert settings.server.log_level == "debug"


def test_devices() -> None:
    assert read({"device": ("cuda",), "device_id": ("0,1",)}).models[0].device == "cuda:0,cuda:1"


def test_fp8_is_passed_on() -> None:
    assert read({"dtype": ("fp8",)}).models[0].dtype == "fp8"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"model_id": ("a", "b", "c"), "device": ("cpu", "cpu")}, "--device is given 2 times for 3 models"),
        ({"engine": ("neuron",)}, "--engine neuron"),
        ({"embedding_dtype": ("int8",)}, "by request"),
        ({"device": ("mps",)}, "--device mps"),
        ({"url_prefix": "v1/"}, "must start with /"),
    ],
)
def test_what_cannot_be_honoured(flags: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read(flags)


def test_what_means_nothing_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "lemni.infinity"):
        read({"batch_size": ("64",), "bettertransformer": (True,)})
    assert "--batch-size" in caplog.text
    assert "--bettertransformer" in caplog.text
