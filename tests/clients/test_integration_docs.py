"""The examples of docs/integrations.md, run as they stand; that of `llm` is in its own test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.clients import environments
from tests.clients.conftest import KEY

PAGE = (Path(__file__).parents[2] / "docs" / "integrations.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.M | re.S))
PYTHON = {
    name: code for name, text in SECTIONS.items() for code in re.findall(r"```python\n(.*?)```", text, flags=re.S)
}


def test_every_section_has_an_example() -> None:
    assert {*PYTHON, "llm"} == set(SECTIONS)


@pytest.mark.parametrize("name", PYTHON)
def test_python(name: str, server: str, tmp_path: Path) -> None:
    (promised,) = re.findall(r"^print\(.*\)\n# (.*)$", PYTHON[name], flags=re.M)
    code = f"import os; os.chdir({str(tmp_path)!r})\n" + PYTHON[name].replace("http://localhost:7997", server)
    program = Path(__file__).with_name("page_program.py")
    printed = environments.run("clients", program, {"code": code}, PYTHONPATH=environments.SOURCE, LEMNI_API_KEY=KEY)
    assert printed == [promised]
