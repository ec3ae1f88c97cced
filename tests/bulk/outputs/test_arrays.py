"""npy, npz, safetensors and `--format numpy`, read back with numpy and safetensors."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file

from lemni.bulk.outputs import Made, open_output
from lemni.bulk.rows import Rows
from lemni.errors import InvalidRequest
from tests.bulk.outputs.made import (
    MULTI,
    SPARSE,
    TYPES,
    WIDTH,
    dense,
    ids,
    listed,
    rows,
    shards,
    stacked,
    vectors,
    written,
)

LONG = ["short", "x" * 300, "", "naïve 猫 \ud800", "ends\0"]


def same(found: Any, expected: Any) -> None:
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def texts_of(data: Any, offsets: Any) -> list[str]:
    """The ids of `ids_utf8` and `ids_offsets`, as documented."""
    return [bytes(data[start:end]).decode("utf-8", "surrogatepass") for start, end in itertools.pairwise(offsets)]


@pytest.mark.parametrize("output_type", TYPES)
def test_npy(tmp_path: Path, work: Path, output_type: str) -> None:
    made = dense(output_type)
    given = shards(made, 3, 0, 5)
    files = written(open_output(f"{tmp_path}/v.npy"), given, made, work)
    assert files == [tmp_path / "v.npy", tmp_path / "v.ids.npy"]
    same(np.load(tmp_path / "v.npy", mmap_mode="r"), stacked(given))
    same(np.load(tmp_path / "v.ids.npy"), np.arange(8))


@pytest.mark.parametrize("output_type", TYPES)
def test_npz_and_safetensors_of_dense_vectors(tmp_path: Path, work: Path, output_type: str) -> None:
    made = dense(output_type)
    given = shards(made, 3, 0, 5)
    written(open_output(f"{tmp_path}/v.npz"), given, made, work)
    with np.load(tmp_path / "v.npz") as found:
        assert set(found) == {"vectors", "ids"}
        same(found["vectors"], stacked(given))
        same(found["ids"], np.arange(8))
    written(open_output(f"{tmp_path}/v.safetensors"), given, made, work)
    tensors = load_file(tmp_path / "v.safetensors")
    assert set(tensors) == {"embeddings", "ids"}
    same(tensors["embeddings"], stacked(given))
    same(tensors["ids"], np.arange(8))
    with safetensors.safe_open(tmp_path / "v.safetensors", "np") as file:
        assert file.metadata() == {
            "model": "some/model",
            "revision": "abc123",
            "task": "embed",
            "output_type": output_type,
            "similarity": "cosine",
            "dimensions": str(WIDTH),
        }


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
@pytest.mark.parametrize("made", [SPARSE, MULTI], ids=["sparse", "multi"])
def test_vectors_of_unequal_size(tmp_path: Path, work: Path, ending: str, made: Made) -> None:
    given = shards(made, 6, 0, 3)
    path = tmp_path / f"v.{ending}"
    written(open_output(str(path)), given, made, work)
    found = dict(np.load(path)) if ending == "npz" else load_file(path)
    same(found.pop("ids"), np.arange(9))
    lengths = found.pop("lengths")
    assert lengths.dtype == np.int32
    assert set(found) == ({"indices", "values"} if made.task == "sparse" else {"vectors"})
    ends = np.cumsum(lengths)
    assert all(len(array) == ends[-1] for array in found.values())
    for end, length, expected in zip(ends, lengths, listed(given), strict=True):
        for name, array in found.items():
            same(array[end - length : end], getattr(expected, name) if made.task == "sparse" else expected)


def test_ids_that_are_texts(tmp_path: Path, work: Path) -> None:
    made = dense()
    names = ["a", "naïve 猫", "", "x" * 40]
    # Whole numbers in one shard and texts in the next are texts in all.
    given = [(rows(0, 3), vectors(3, made)), (rows(3, 4, ids=names), vectors(4, made, 1))]
    expected = ["0", "1", "2", *names]
    written(open_output(f"{tmp_path}/v.npy"), given, made, work)
    found = np.load(tmp_path / "v.ids.npy", allow_pickle=False)
    assert found.dtype == np.dtype("<U40")
    assert found.tolist() == expected
    written(open_output(f"{tmp_path}/v.npz"), given, made, work)
    assert np.load(tmp_path / "v.npz")["ids"].tolist() == expected
    written(open_output(f"{tmp_path}/v.safetensors"), given, made, work)
    tensors = load_file(tmp_path / "v.safetensors")
    assert texts_of(tensors["ids_utf8"], tensors["ids_offsets"]) == expected


def test_numbers_of_over_64_bits_and_both_kinds_in_one_shard(tmp_path: Path, work: Path) -> None:
    made = dense()
    for given in ([2**63, 1], [2**63 - 1, "x"], [-(2**63), 2**63 - 1]):
        written(open_output(f"{tmp_path}/v.npy"), [(rows(0, 2, ids=given), vectors(2, made))], made, work)
        found = np.load(tmp_path / "v.ids.npy").tolist()
        assert found == (given if given[0] == -(2**63) else [str(one) for one in given])


def test_long_ids_and_those_that_numpy_would_cut(tmp_path: Path, work: Path) -> None:
    made = dense()
    given = [(rows(0, 2), vectors(2, made)), (rows(2, 5, ids=LONG), vectors(5, made)), (rows(7, 0), vectors(0, made))]
    expected = ["0", "1", *LONG]
    (tmp_path / "v.ids.npy").write_bytes(b"of an earlier run")
    files = written(open_output(f"{tmp_path}/v.npy"), given, made, work)
    assert files == [tmp_path / "v.npy", tmp_path / "v.ids.npz"]
    assert not (tmp_path / "v.ids.npy").exists()
    with np.load(tmp_path / "v.ids.npz") as found:
        assert texts_of(found["ids_utf8"], found["ids_offsets"]) == expected
    written(open_output(f"{tmp_path}/v.npz"), given, made, work)
    with np.load(tmp_path / "v.npz") as found:
        assert set(found) == {"vectors", "ids_utf8", "ids_offsets"}
        assert texts_of(found["ids_utf8"], found["ids_offsets"]) == expected
    for one in LONG:
        written(open_output(f"{tmp_path}/w.npy"), [(rows(0, 1, ids=[one]), vectors(1, made))], made, work)
        even = one in ("short", "", "naïve 猫 \ud800")
        assert (tmp_path / "w.ids.npy").exists() == even
        assert (tmp_path / "w.ids.npz").exists() != even


@pytest.mark.parametrize("given", [[], [(rows(0, 0), vectors(0, dense()))], [(rows(0, 0), [])]])
def test_a_job_without_rows(tmp_path: Path, work: Path, given: list[Any]) -> None:
    for output_type, width in (("float16", WIDTH), ("ubinary", WIDTH // 8)):
        made = dense(output_type)
        some = [(none, [] if isinstance(left, list) else vectors(0, made)) for none, left in given]
        written(open_output(f"{tmp_path}/v.npy"), some, made, work)
        assert np.load(tmp_path / "v.npy").shape == (0, width)
        assert np.load(tmp_path / "v.npy").dtype == made.dtype
        same(np.load(tmp_path / "v.ids.npy"), np.array([], np.int64))
        written(open_output(f"{tmp_path}/v.safetensors"), some, made, work)
        same(load_file(tmp_path / "v.safetensors")["embeddings"], np.empty((0, width), made.dtype))
    for made in (SPARSE, MULTI):
        some = [(none, []) for none, _ in given]
        written(open_output(f"{tmp_path}/v.npz"), some, made, work)
        found = np.load(tmp_path / "v.npz")
        same(found["lengths"], np.array([], np.int32))
        same(
            found["values" if made.task == "sparse" else "vectors"],
            np.empty((0,) if made.task == "sparse" else (0, WIDTH), np.float32),
        )


def test_format_numpy_describes_itself(tmp_path: Path, work: Path) -> None:
    made = dense()
    given = shards(made, 3, 4)
    output = open_output(f"{tmp_path}/embeddings_new.npy", format="numpy")
    files = written(output, given, made, work)
    assert {path.name for path in files} == {"embeddings_new.npy", "embeddings_new.ids.npy", "embeddings_new.json"}
    assert set(files) <= set(output.files())
    same(np.load(tmp_path / "embeddings_new.npy"), stacked(given))
    assert np.load(tmp_path / "embeddings_new.ids.npy").tolist() == ids(given)
    assert json.loads((tmp_path / "embeddings_new.json").read_bytes()) == {
        "model": "some/model",
        "dimension": WIDTH,
        "num_embeddings": 7,
        "texts_file": None,
    }


def test_what_they_do_not_hold(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="npy holds embeddings, not sparse embeddings"):
        open_output(f"{tmp_path}/v.npy").prepare(SPARSE)
    with pytest.raises(InvalidRequest, match="numpy holds float32, not int8"):
        open_output(f"{tmp_path}/v.npy", format="numpy").prepare(dense("int8"))
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidRequest, match="cannot be written"):
        open_output(f"{tmp_path}/file/v.npz").prepare(dense())


@pytest.mark.parametrize(
    ("made", "wrong"),
    [
        (dense("int8"), np.zeros((2, WIDTH), np.float32)),
        (dense("int8"), np.zeros((2, WIDTH), np.uint8)),
        (dense(), np.zeros((2, WIDTH + 1), np.float32)),
        (dense(), np.zeros((3, WIDTH), np.float32)),
        (MULTI, [np.zeros((1, WIDTH), np.float32)]),
    ],
)
def test_vectors_that_are_not_those_announced(tmp_path: Path, made: Made, wrong: Any) -> None:
    two: Rows = rows(0, 2)
    for ending in ("npz", "parquet"):
        with pytest.raises(ValueError, match="vectors"):
            open_output(f"{tmp_path}/v.{ending}").write(tmp_path / "part", two, wrong, made)
