"""What the documentation says, against the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lemni.config import EngineSettings, HubSettings, MediaSettings, ModelSettings, ServerSettings
from lemni.families import FAMILIES
from lemni.runtimes import RUNTIMES
from lemni.server.dialects import load_dialects

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]


def test_every_setting_is_listed_with_its_default_and_meaning() -> None:
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in page("configuration.md")]
    listed = [row for row in rows if len(row) == 3 and row[0].startswith("`")]
    expected = []
    for section in (ModelSettings, EngineSettings, ServerSettings, HubSettings, MediaSettings):
        for name, field in section.model_fields.items():
            default = str(field.default).lower() if isinstance(field.default, bool) else field.default
            expected.append((f"`{name}`", "" if default is None else f"`{default}`", field.description))
    assert listed == expected


def test_every_family_and_runtime_is_listed() -> None:
    text = "\n".join(page("models.md"))
    for name in [*FAMILIES, *RUNTIMES]:
        assert f"`{name}`" in text, name


def test_every_route_of_every_dialect_is_listed() -> None:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in page("dialects.md")]
    listed = {(row[0], tuple(re.findall(r"`([^`]+)`", row[1]))) for row in cells if len(row) == 4}
    expected = {
        (dialect.name, (f"{operation.method} {operation.paths[0]}", *operation.paths[1:]))
        for dialect in load_dialects()
        for operation in dialect.operations
    }
    assert expected <= listed
    assert {name for name, _ in listed - expected} == {"API", "---", "TEI over gRPC"}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text("utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name} -> {target}"


def page(name: str) -> list[str]:
    return (ROOT / "docs" / name).read_text("utf-8").splitlines()
