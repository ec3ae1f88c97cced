"""`lemni.bulk.estimate`: numbers that can be checked against the job itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lemni.bulk
from lemni.errors import InvalidRequest

from .conftest import FAST, texts


def estimate(source: Any, output: Any, **wanted: Any) -> lemni.bulk.Estimate:
    return lemni.bulk.estimate(source, output, model=FAST, **wanted)


def test_it_is_near_what_the_job_makes(tmp_path: Path) -> None:
    source = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": texts(3000)}), source)
    for name in ("out.npy", "out.parquet", "out.jsonl"):
        found = estimate(source, tmp_path / name, price_per_hour=7.0)
        assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]
        done = lemni.bulk.embed(source, tmp_path / name, model=FAST, progress=False)
        assert (found.rows, found.counted, found.sample, found.rejected) == (done.rows, True, 256, 0)
        assert found.tokens == pytest.approx(done.tokens, rel=0.15)
        assert found.output_bytes == pytest.approx((tmp_path / name).stat().st_size, rel=0.2)
        assert found.seconds == pytest.approx(3000 / found.rows_per_s)
        assert found.cost == pytest.approx(7 * found.seconds / 3600)
        for path in tmp_path.iterdir():
            if path != source:
                path.unlink()


def test_rows_of_lines_are_guessed_from_their_bytes(tmp_path: Path) -> None:
    source = tmp_path / "some.txt"
    source.write_text("".join(f"{text}\n" for text in texts(5000)))
    found = estimate(source, tmp_path / "out.npy")
    assert found.rows == pytest.approx(5000, rel=0.15)
    assert found.cost is None
    source.write_text("".join(f"{text}\n" for text in texts(100)))
    found = estimate(source, tmp_path / "out.npy")
    assert (found.rows, found.counted, found.sample) == (100, True, 100)


def test_rejected_rows_are_counted_once(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    given = ["a", "", None, "a long text " * 400, "b", "another long text " * 400]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in given))
    for output in (tmp_path / "out.npy", f"sqlite-vec:{tmp_path}/store.db?collection=docs"):
        found = estimate(source, output, truncate="error", max_tokens=64)
        assert (found.rows, found.sample, found.rejected) == (6, 6, 4)
        assert (found.output_bytes is None) == (not isinstance(output, Path))
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_job_that_is_under_way_is_left_alone(tmp_path: Path) -> None:
    source = tmp_path / "some.txt"
    source.write_text("".join(f"{text}\n" for text in texts(100)))
    lemni.bulk.embed(source, tmp_path / "out.npy", model=FAST, progress=False)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert estimate(source, tmp_path / "out.npy", output_type="float16").rows == 100
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert np.load(tmp_path / "out.npy").dtype == np.float32


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "some.txt: has no rows"),
        ("\n \n", "none of the first 2 rows can be embedded: is empty"),
    ],
)
def test_inputs_without_anything(content: str, message: str, tmp_path: Path) -> None:
    source = tmp_path / "some.txt"
    source.write_text(content)
    with pytest.raises(InvalidRequest, match=message):
        estimate(source, tmp_path / "out.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["some.txt"]
