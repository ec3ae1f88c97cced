"""Live servers that several test files of the client use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client.late_interaction_server import Live, late_interaction_server


@pytest.fixture(scope="session")
def late_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with late_interaction_server(tmp_path_factory.mktemp("late")) as live:
        yield live


@pytest.fixture
def late(late_models: Live) -> Live:
    """A live Lemni with tiny ColQwen2, ColPali and ColBERT models, that has been asked nothing yet."""
    late_models.asked.clear()
    return late_models
