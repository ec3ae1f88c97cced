"""A fast real model, and texts to embed."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from lemni import hub
from lemni.config import HubSettings
from tests.leftovers import swept

__all__ = ["swept"]

# Static vectors: thousands of texts a second, so that tests spend their time on files.
FAST = "pypi:tokenlearn-static-model==0.1.1#static_model/model"


def texts(count: int, seed: int = 0) -> list[str]:
    words = ["cat", "dog", "house", "sea", "wind", "engine", "vector", "paper", "light", "stone", "river"]
    chance = random.Random(seed)
    return [" ".join(chance.choices(words, k=chance.randint(1, 12))) + f" {number}" for number in range(count)]


@pytest.fixture(scope="session")
def fast_folder() -> Path:
    """Where `FAST` is, for jobs with a cache of their own."""
    return hub.resolve(FAST, HubSettings.model_validate({}), progress=False).path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """1,000 rows of JSON lines with ids and a column to carry; eight of them cannot be embedded."""
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        for number, text in enumerate(texts(1000)):
            row: object = {"id": f"row-{number}", "text": text, "year": 1900 + number % 100}
            if number % 125 == 7:
                row = {"id": f"row-{number}", "text": [None, "", 5, " "][number // 125 % 4]}
            file.write(json.dumps(row) + "\n")
    return path
