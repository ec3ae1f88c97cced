"""TensorStore against the safetensors library, on files that it wrote itself, and on broken files."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lemni.errors import ModelLoadError
from lemni.hub.tensors import TensorStore


def write(path: Path, header: dict[str, Any] | bytes, data: bytes) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(3, 5, generator=generator).to(dtype)
        for name, dtype in {
            "f32": torch.float32,
            "f16": torch.float16,
            "bf16": torch.bfloat16,
            "f64": torch.float64,
        }.items()
    }
    for name in ("int8", "uint8", "int16", "int32", "int64"):
        tensors[name] = torch.randint(0, 100, (7,), generator=generator).to(getattr(torch, name))
    tensors |= {"bool": torch.tensor([True, False, True]), "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4)}
    save_file(tensors, tmp_path / "t.safetensors", metadata={"format": "pt"})
    return tmp_path / "t.safetensors", tensors


def test_every_storage_type_reads_as_the_library_wrote_it(saved: tuple[Path, dict[str, Any]]) -> None:
    import torch

    path, tensors = saved
    with TensorStore([path]) as store:
        assert sorted(store.names()) == sorted(tensors)
        assert store.parameters() == sum(t.numel() for t in tensors.values())
        for name, tensor in tensors.items():
            expected = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
            got = store.numpy(name)
            assert got.dtype == expected.dtype
            assert store.shape(name) == got.shape == expected.shape
            np.testing.assert_array_equal(got, expected)
        assert store.dtype("bf16") == "BF16"
        assert store.dtype("scalar") == "F32"
        np.testing.assert_array_equal(store.raw("bf16").view("<u2"), tensors["bf16"].view(torch.uint16).numpy().ravel())


def test_lends_views_of_the_file_and_never_writes_it(saved: tuple[Path, dict[str, Any]]) -> None:
    store = TensorStore([saved[0]])
    view = store.numpy("f32")
    assert view.flags.writeable  # else OpenVINO and torch would copy
    assert not view.flags.owndata
    assert np.shares_memory(view, store.raw("f32"))
    before = saved[0].read_bytes()
    view[0, 0] = 7
    assert saved[0].read_bytes() == before  # a write stays in this process
    store.close()
    store.close()
    assert "f32" not in store
    assert np.isfinite(view).all()  # a view outlives the store


def test_shards_are_one_store(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(4, dtype=np.int64)
    save_file({"a": a}, tmp_path / "1.safetensors")
    save_file({"b": b}, tmp_path / "2.safetensors")
    store = TensorStore([tmp_path / "1.safetensors", tmp_path / "2.safetensors"])
    assert store.names() == ["a", "b"]
    np.testing.assert_array_equal(store.numpy("a"), a)
    np.testing.assert_array_equal(store.numpy("b"), b)
    with pytest.raises(ModelLoadError, match=r"2\.safetensors.*'b'"):
        TensorStore([tmp_path / "2.safetensors", tmp_path / "2.safetensors"])


def test_an_unpadded_header_still_gives_aligned_arrays(tmp_path: Path) -> None:
    values = np.array([1.5, -2.0], dtype="<f4")
    header = b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    header += b" " * ((1 - (8 + len(header))) % 4)  # data begins one byte after a multiple of four
    store = TensorStore([write(tmp_path / "x.safetensors", header, values.tobytes())])
    assert store.numpy("x").flags.aligned
    np.testing.assert_array_equal(store.numpy("x"), values)


def test_names_the_tensor_and_the_file_that_lack(saved: tuple[Path, dict[str, Any]]) -> None:
    with pytest.raises(ModelLoadError, match=r"'nope'.*t\.safetensors"):
        TensorStore([saved[0]]).numpy("nope")
    with pytest.raises(ModelLoadError, match=r"gone\.safetensors: cannot be read: No such file"):
        TensorStore([saved[0].with_name("gone.safetensors")])


X = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"x": X}, b"\0" * 7, "truncated: tensor 'x' ends at byte 8"),
        ({"x": X}, b"\0" * 9, "1 bytes after the last tensor"),
        ({"x": {**X, "shape": [3]}}, b"\0" * 8, r"F32 \[3\] but has 8 bytes"),
        ({"x": {**X, "dtype": "F99"}}, b"\0" * 8, "unknown storage type 'F99'"),
        ({"x": {**X, "data_offsets": [-8, 0]}}, b"\0" * 8, "not natural numbers"),
        ({"x": {**X, "shape": [True, 2]}}, b"\0" * 8, "not natural numbers"),
        ({"x": X, "y": X}, b"\0" * 8, "a gap or an overlap"),
        ({"x": {**X, "data_offsets": [8, 16]}}, b"\0" * 16, "a gap or an overlap"),
        ({"x": {"dtype": "F32"}}, b"", "corrupt safetensors header"),
        ({"x": 3}, b"", "corrupt safetensors header"),
        (b"[1, 2]", b"", "corrupt safetensors header"),
        (b"{nonsense", b"", "corrupt safetensors header"),
        (b"\xff\xfe{}", b"", "corrupt safetensors header"),
    ],
)
def test_broken_files_are_refused_by_name(tmp_path: Path, header: Any, data: bytes, message: str) -> None:
    path = write(tmp_path / "broken.safetensors", header, data)
    with pytest.raises(ModelLoadError, match=message) as caught:
        TensorStore([path])
    assert str(path) in caught.value.message


@pytest.mark.parametrize("content", [b"", b"1234567", struct.pack("<Q", 1 << 62), b"PK\x03\x04 some other file"])
def test_other_files_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match=r"other\.safetensors: not a safetensors file"):
        TensorStore([path])


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_flipped_bytes_never_escape_as_another_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from safetensors.numpy import save

    good = bytearray(save({"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.float16)}))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "flipped.safetensors"
    path.write_bytes(good[: data.draw(st.integers(len(good) - 3, len(good)))])
    with contextlib.suppress(ModelLoadError):  # any other error fails the test
        store = TensorStore([path])
        for name in store.names():
            store.numpy(name)


def test_eight_bit_floats_are_refused_by_name_but_their_bytes_can_be_had(tmp_path: Path) -> None:
    header = {"x": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}
    store = TensorStore([write(tmp_path / "f8.safetensors", header, b"\x01\x02")])
    assert store.raw("x").tolist() == [1, 2]
    with pytest.raises(ModelLoadError, match=r"f8\.safetensors: tensor 'x' is stored as F8_E4M3"):
        store.numpy("x")


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (4, 1)])
def test_scales_of_codes_may_have_no_axes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    from safetensors.numpy import save_file

    codes = np.arange(12, dtype=np.int8).reshape(4, 3)
    sides = {"x_scale": np.full(shape, 0.5, np.float32), "x_zero_point": np.full(shape, 2, np.int8)}
    save_file({"x": codes, **sides}, tmp_path / "codes.safetensors")
    store = TensorStore([tmp_path / "codes.safetensors"])
    expected = (codes.astype(np.float32) - 2) / 2
    np.testing.assert_array_equal(store.numpy("x"), expected)
    np.testing.assert_array_equal(store.rows("x", [3, 1]), expected[[3, 1]])


def test_codes_without_axes_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"x": np.array(3, np.int8), "x_scale": np.array(2, np.float32)}, tmp_path / "codes.safetensors")
    with pytest.raises(ModelLoadError, match=r"tensor 'x' is int8 \(\) with scales"):
        TensorStore([tmp_path / "codes.safetensors"]).numpy("x")
