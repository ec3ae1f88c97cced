"""`lemni`, `--version`, `--help`: instant, complete, and nothing heavy imported."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import lemni as package
from lemni.cli.app import COMMANDS, app
from lemni.cli.local import LEFT_OUT
from lemni.config import EngineSettings, HubSettings, MediaSettings, ModelSettings, ServerSettings

from .command import COMMAND, environment, error_line, lemni

HEAVY = ("openvino", "torch", "transformers", "fastapi", "uvicorn", "huggingface_hub", "tokenizers", "pyarrow", "httpx")


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], [], *([name, "--help"] for name in COMMANDS), ["models", "rm", "--help"]]
)
def test_nothing_heavy_is_imported(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from lemni.cli.app import app\n"
        f"try: app.main({arguments!r}, prog_name='lemni')\n"
        f"finally: print('loaded:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("loaded: []\n")


def test_version(tmp_path: Path) -> None:
    assert lemni("--version", cwd=tmp_path).stdout == f"lemni {package.__version__}\n"


def test_the_installed_script_is_the_same_command(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("lemni")
    done = subprocess.run([script, "-V"], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.stdout == f"lemni {package.__version__}\n"


def test_help_lists_every_command_and_examples() -> None:
    for arguments in ([], ["--help"], ["-h"]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0
        assert "Examples:" in result.output
        for name in COMMANDS:
            assert f"\n  {name}  " in result.output


@pytest.mark.parametrize(
    ("command", "sections", "left_out"),
    [
        ("serve", (ModelSettings, EngineSettings, ServerSettings, HubSettings, MediaSettings), {"model"}),
        ("embed", (ModelSettings, EngineSettings, HubSettings), set(LEFT_OUT)),
        ("rerank", (ModelSettings, EngineSettings, HubSettings), set(LEFT_OUT)),
        ("classify", (ModelSettings, EngineSettings, HubSettings), set(LEFT_OUT)),
        ("pull", (HubSettings,), set()),
    ],
)
def test_help_shows_every_setting_with_its_variable_and_default(
    command: str, sections: tuple[type[ModelSettings], ...], left_out: set[str]
) -> None:
    output = " ".join(CliRunner().invoke(app, [command, "--help"]).output.split())
    assert "Examples:" in output
    for section in sections:
        assert f"{section.__name__.removesuffix('Settings')}: " in output
        for name, info in section.model_fields.items():
            if name in left_out:
                assert f"LEMNI_{name.upper()}" not in output
                continue
            assert f"--{name.replace('_', '-')} " in output
            assert f"[env: LEMNI_{name.upper()}" in output
            assert str(info.description) in output
    if ServerSettings in sections:
        assert "[env: LEMNI_PORT; default: 7997]" in output


def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    assert error_line(lemni("serv", cwd=tmp_path)) == "no command 'serv'; did you mean serve? Try 'lemni --help'."


def test_an_option_that_does_not_exist(tmp_path: Path) -> None:
    line = error_line(lemni("models", "list", "--ofline", cwd=tmp_path))
    assert "--ofline" in line
    assert "--offline" in line


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, tmp_path: Path) -> None:
    done = lemni("completion", shell, cwd=tmp_path)
    assert done.returncode == 0
    assert "_LEMNI_COMPLETE" in done.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.stdout, text=True, check=True, timeout=60)


def complete(words: str, count: int, cwd: Path, env: dict[str, str] | None = None) -> list[str]:
    done = subprocess.run(
        COMMAND,
        cwd=cwd,
        env=environment(
            {**(env or {}), "_LEMNI_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)}
        ),
        capture_output=True,
        text=True,
        timeout=60,
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_completion_knows_commands_options_and_choices(tmp_path: Path) -> None:
    assert complete("lemni mo", 1, tmp_path) == ["models"]
    assert complete("lemni embed --max-b", 2, tmp_path) == ["--max-batch-tokens"]
    assert "bfloat16" in complete("lemni embed --dtype ", 3, tmp_path)


def test_completion_knows_cached_models(tmp_path: Path) -> None:
    home = tmp_path / "cache" / "models" / "org--name" / "1"
    home.mkdir(parents=True)
    manifest = '{"id": "org/name", "revision": "1", "origin": "org/name", "time_s": 0, "files": []}'
    (home / "lemni-manifest.json").write_text(manifest)
    env = {"LEMNI_CACHE_DIR": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hf")}
    assert "org/name" in complete("lemni models show o", 3, tmp_path, env)
    assert "org/name" in complete("lemni embed --model o", 3, tmp_path, env)
    # A mistake in the settings must not spill over the prompt.
    assert "org/name" not in complete("lemni models show o", 3, tmp_path, {**env, "LEMNI_PROT": "1"})


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_completion_works_in_bash(tmp_path: Path) -> None:
    script = lemni("completion", "bash", cwd=tmp_path).stdout
    program = f'{script}\nCOMP_WORDS=(lemni comp); COMP_CWORD=1; _lemni_completion lemni; echo "${{COMPREPLY[@]}}"'
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", program],
        cwd=tmp_path,
        env=environment({"PATH": path}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["completion"]
