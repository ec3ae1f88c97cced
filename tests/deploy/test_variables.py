"""Every LEMNI_ variable that a file in deploy/ or its page names is a setting."""

from __future__ import annotations

import re

from lemni.cli.settings import load_settings
from lemni.errors import ConfigError

from .manifests import DEPLOY

PAGE = DEPLOY.parent / "docs" / "deploy.md"


def is_setting(variable: str) -> bool:
    """Whether it is known: a bad value is then the error, or none at all."""
    try:
        load_settings({}, {variable: "1"})
    except ConfigError as error:
        return "unknown" not in str(error)
    return True


def test_variables() -> None:
    files = [path for path in DEPLOY.rglob("*") if path.is_file()] + [PAGE]
    named = {name for path in files for name in re.findall(r"LEMNI_[A-Z_]+[A-Z]", path.read_text("utf-8"))}
    assert {"LEMNI_PORT", "LEMNI_API_KEY", "LEMNI_CONFIG", "LEMNI_THREADS"} <= named
    assert [name for name in sorted(named - {"LEMNI_CONFIG"}) if not is_setting(name)] == []
    assert not is_setting("LEMNI_MODEL_NAMES")
