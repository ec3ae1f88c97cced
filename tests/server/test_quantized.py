"""The int8 ranges of a served model: measured by whoever asks first, once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from lemni.engine import Engine
from lemni.errors import UnknownModel
from lemni.server.quantized import MeasuredRanges
from lemni.types import Options
from tests.engine.toy import ToyModel, engine_of


async def test_measured_once(real_engine: Engine, tmp_path: Path) -> None:
    [card] = real_engine.cards()
    before = real_engine.status()[card.name].requests
    here = MeasuredRanges(tmp_path)
    sizes = (None, None, 64, 384)
    found = await asyncio.gather(*(here.of(card, Options(dimensions=size), real_engine) for size in sizes))
    assert [ranges.shape for ranges in found] == [(2, 384), (2, 384), (2, 64), (2, 384)]
    assert real_engine.status()[card.name].requests == before + 1
    # MiniLM normalises by itself: its ranges are those of unit vectors whether or not one asks for them.
    np.testing.assert_array_equal(found[0], await here.of(card, Options(normalize=True), real_engine))
    assert (found[0][1] > found[0][0]).all()
    assert np.abs(found[0]).max() < 1
    np.testing.assert_array_equal(found[0], await MeasuredRanges(tmp_path).of(card, Options(), real_engine))
    assert real_engine.status()[card.name].requests == before + 1
    assert len(list((tmp_path / "ranges").glob("*.npy"))) == 1


async def test_a_failed_measurement_is_tried_again(real_engine: Engine, tmp_path: Path) -> None:
    [card] = real_engine.cards()
    here = MeasuredRanges(tmp_path)
    with engine_of(ToyModel()) as other, pytest.raises(UnknownModel):
        await here.of(card, Options(), other)
    assert not (tmp_path / "ranges").exists()
    assert (await here.of(card, Options(), real_engine)).shape == (2, 384)
