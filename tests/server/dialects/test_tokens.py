"""What every dialect's tokenizing has in common."""

from __future__ import annotations

import httpx
import pytest

from lemni.server.dialects import tokens


async def test_texts_over_the_limit_are_refused(real: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MOST_CHARACTERS", 9)
    assert (await real.post("/tokenize", json={"inputs": ["abcd ", "efgh"]})).status_code == 200
    answer = await real.post("/tokenize", json={"inputs": ["abcd ", "efghi"]})
    assert answer.status_code in (400, 413, 422)
    assert "the texts have 10 characters together; at most 9 are tokenised" in answer.text
