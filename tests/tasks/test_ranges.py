"""Ranges: measured once per model, the same for every process, measured again if the file is damaged."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lemni.errors import InvalidOutput, InvalidRequest
from lemni.tasks.ranges import Ranges, RangesKey, calibrate, corpus, ranges_of

KEY = RangesKey("org/some model", "abc")
RAW = np.random.default_rng(0).standard_normal((40, 12)).astype(np.float32)


def test_the_corpus() -> None:
    texts = corpus()
    assert len(texts) == len(set(texts)) == 256
    assert all(text and text == text.strip() for text in texts)


def test_ranges_are_of_the_vectors_that_will_be_converted() -> None:
    np.testing.assert_array_equal(ranges_of(RAW, normalize=False, margin=0), [RAW.min(0), RAW.max(0)])
    cut = RAW[:, :5] / np.linalg.norm(RAW[:, :5], axis=1, keepdims=True)
    low, high = cut.min(0), cut.max(0)
    expected = [low - 0.5 * (high - low), high + 0.5 * (high - low)]
    got = ranges_of(RAW, dimensions=5, normalize=True, margin=0.5)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    zero = np.concatenate([RAW, np.zeros((1, 12), dtype=np.float32)])
    assert np.isfinite(ranges_of(zero, normalize=True)).all()
    with pytest.raises(InvalidRequest, match="dimensions is 13: 1 to 12"):
        ranges_of(RAW, dimensions=13, normalize=True)


def test_calibrate_takes_a_matrix_or_one_per_text() -> None:
    vectors = np.arange(512, dtype=np.float32).reshape(256, 2)
    np.testing.assert_array_equal(calibrate(lambda texts: vectors[: len(texts)]), vectors)
    tokens = [vectors[: 1 + item % 3] for item in range(256)]
    np.testing.assert_array_equal(calibrate(lambda _: tokens), np.concatenate(tokens))
    with pytest.raises(InvalidOutput, match="NaN"):
        calibrate(lambda _: np.full((256, 2), np.nan, dtype=np.float32))


def test_kept_for_the_next_process(tmp_path: Path) -> None:
    ranges = Ranges(tmp_path / "cache")
    assert ranges.get(KEY) is None
    assert not (tmp_path / "cache").exists()
    ranges.put(KEY, RAW)
    for reader in (ranges, Ranges(tmp_path / "cache")):
        for dimensions, normalize in [(None, True), (None, False), (5, True)]:
            got = reader.get(KEY, dimensions=dimensions, normalize=normalize)
            assert got is not None
            np.testing.assert_array_equal(got, ranges_of(RAW, dimensions=dimensions, normalize=normalize))
        for other in [
            RangesKey("org/some model", "abd"),
            RangesKey("org/other", "abc"),
            RangesKey(*_of(KEY), "tokens"),
        ]:
            assert reader.get(other) is None


def test_the_first_measurement_holds(tmp_path: Path) -> None:
    first, second = Ranges(tmp_path), Ranges(tmp_path)
    first.put(KEY, RAW)
    second.put(KEY, RAW * 2)
    np.testing.assert_array_equal(_got(second), _got(first))


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY rubbish", b"half"], ids=["empty", "rubbish", "half"])
def test_a_damaged_file_is_measured_again(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    Ranges(tmp_path).put(KEY, RAW)
    (path,) = (tmp_path / "ranges").glob("*.npy")
    path.write_bytes(path.read_bytes()[:-100] if content == b"half" else content)
    assert Ranges(tmp_path).get(KEY) is None
    assert "will be measured again" in caplog.text
    Ranges(tmp_path).put(KEY, RAW * 2)
    np.testing.assert_array_equal(_got(Ranges(tmp_path)), ranges_of(RAW * 2, normalize=False))


def test_files_of_other_kinds_are_not_taken(tmp_path: Path) -> None:
    Ranges(tmp_path).put(KEY, RAW)
    (path,) = (tmp_path / "ranges").glob("*.npy")
    for wrong in (RAW.astype(np.float64), RAW[0], RAW[:0], RAW * np.float32(np.nan)):
        np.save(path, wrong)
        assert Ranges(tmp_path).get(KEY) is None
    np.save(path, np.array([{"a": 1}]))
    assert Ranges(tmp_path).get(KEY) is None


def test_a_folder_that_cannot_be_written_to_costs_only_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "ranges").write_text("a file where the folder should be")
    ranges = Ranges(tmp_path)
    ranges.put(KEY, RAW)
    assert "the int8 ranges of org/some model are not kept" in caplog.text
    np.testing.assert_array_equal(_got(ranges), ranges_of(RAW, normalize=False))


def test_processes_at_once_agree(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        seen = pool.starmap(_measure, [(tmp_path, float(seed)) for seed in range(1, 9)])
    assert len({ranges.tobytes() for ranges in seen}) == 1
    assert [path.suffix for path in sorted((tmp_path / "ranges").iterdir())] in ([".npy"], [".lock", ".npy"])


def _measure(folder: Path, factor: float) -> NDArray[np.float32]:
    ranges = Ranges(folder)
    ranges.put(KEY, RAW * np.float32(factor))
    return _got(ranges)


def _got(ranges: Ranges) -> NDArray[np.float32]:
    got = ranges.get(KEY, normalize=False)
    assert got is not None
    return got


def _of(key: RangesKey) -> tuple[str, str]:
    return key.model_id, key.revision
