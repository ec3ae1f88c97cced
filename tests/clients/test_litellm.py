"""litellm's openai provider, which sends no encoding_format unless told to."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.clients import environments
from tests.clients.conftest import KEY, MODEL, TEXTS

Same = Callable[[object], None]


@pytest.fixture(scope="module")
def answers(server: str) -> dict[str, Any]:
    program = Path(__file__).with_name("litellm_program.py")
    arguments = {"model": MODEL, "texts": TEXTS, "api_base": f"{server}/v1", "api_key": KEY}
    result: dict[str, Any] = environments.run("litellm", program, arguments)
    return result


@pytest.mark.parametrize("case", ["default", "float"])
def test_floats(answers: dict[str, Any], case: str, same: Same) -> None:
    same(answers[case]["vectors"])
    prompt, total = answers[case]["usage"]
    assert prompt == total > 0


def test_base64_is_handed_through(answers: dict[str, Any], same: Same) -> None:
    same([np.frombuffer(base64.b64decode(text), "<f4") for text in answers["base64"]["vectors"]])


def test_errors(answers: dict[str, Any]) -> None:
    assert answers["unknown model"]["error"] == "NotFoundError"
    assert "not served here" in answers["unknown model"]["message"]
    assert answers["wrong key"]["error"] == "AuthenticationError"
    assert "API key is wrong" in answers["wrong key"]["message"]
