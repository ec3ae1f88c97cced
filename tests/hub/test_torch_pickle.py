"""Files of torch.save without torch: equal values, and no way to run code or to take memory."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lemni.errors import ModelLoadError
from lemni.hub.torch_pickle import read_torch


def saved(path: Path, value: Any, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


def archive(path: Path, pickled: bytes, *, data: bytes = b"\0" * 64, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/data/0", data)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("wrap", [dict, OrderedDict, lambda tensors: tensors])
def test_values_are_those_of_torch(tmp_path: Path, dtype: torch.dtype, wrap: Any) -> None:
    layer = torch.nn.Linear(5, 3).to(dtype)
    expected = torch.load(saved(tmp_path / "layer.pt", wrap(layer.state_dict())))
    found = read_torch(tmp_path / "layer.pt")
    assert set(found) == {"weight", "bias"}
    for name, tensor in expected.items():
        wide = tensor.float() if dtype is torch.bfloat16 else tensor
        assert found[name].dtype == wide.numpy().dtype
        np.testing.assert_array_equal(found[name], wide.numpy())


def test_views_parameters_and_shapes(tmp_path: Path) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "turned": whole.T,
        "part": whole[1:3, ::2],
        "same": whole,
        "none": torch.zeros(0, 3),
        "one": torch.tensor(2.5),
        "parameter": torch.nn.Parameter(whole[2]),
    }
    found = read_torch(saved(tmp_path / "views.pt", tensors))
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor.detach().numpy())


class Evil:
    """Runs a command when it is loaded."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.flag}",)


@pytest.mark.parametrize("protocol", range(6))
def test_code_is_refused(tmp_path: Path, protocol: int) -> None:
    flag = tmp_path / "flag"
    path = archive(tmp_path / "evil.pt", pickle.dumps({"weight": Evil(flag)}, protocol))
    with pytest.raises(ModelLoadError, match=r"names (posix|nt)\.system|opcode"):
        read_torch(path)
    assert not flag.exists()


def test_a_model_pickled_whole_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="opcode NEWOBJ"):
        read_torch(saved(tmp_path / "whole.pt", torch.nn.Linear(2, 2)))


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def tensor(shape: bytes, strides: bytes, offset: bytes = b"K\0", kind: bytes = b"ctorch\nFloatStorage\n") -> bytes:
    """The opcodes of {"weight": a tensor of 16 stored values}."""
    storage = b"(" + text("storage") + kind + text("0") + text("cpu") + b"K\x10tQ"
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
    return b"\x80\x02}" + text("weight") + rebuild + b"(" + storage + offset + shape + strides + b"\x89}tRs."


MANY = b"J" + (1 << 30).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (tensor(b"K\x11\x85", b"K\x01\x85"), "beyond its 16 stored values"),
        (tensor(b"K\x08\x85", b"K\x01\x85", b"K\x09"), "beyond its 16 stored values"),
        (tensor(MANY + b"\x85", b"K\0\x85"), "beyond its 16 stored values"),
        (tensor(b"K\x04\x85", b"J\xff\xff\xff\xff\x85"), "no natural number"),
        (tensor(b"K\x04\x85", b"K\x01K\x01\x86"), "shorter|longer"),
        (tensor(b"K\x04\x85", b"K\x01\x85", kind=b"ctorch\nLongStorage\n"), r"names torch\.LongStorage"),
        (tensor(b"K\x04\x85", b"K\x01\x85", kind=text("FloatStorage")), "no storage of floats"),
        (b"\x80\x02}" + text("weight") + b"cbuiltins\neval\n" + text("1+1") + b"\x85Rs.", r"names builtins\.eval"),
        (b"\x80\x02}" + text("weight") + b"K\x01s.", "'weight' is no tensor"),
        (b"\x80\x02}K\x01K\x01s.", "no dictionary of tensors"),
        (b"\x80\x02].", "no dictionary of tensors"),
        (b"\x80\x02}r" + b"\xff\xff\xff\x7f" + b".", "memo of 2147483647"),
        (b"\x80\x02}p9999999999999\n.", "opcode PUT"),
        (b"\x80\x02ccollections\nOrderedDict\n}b.", "no dictionary|not a file"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}" + text("__code__") + b"K\x01s\x86b.", "not a file"),
        (b"\x80\x02(((((", "not a file"),
        (b"", "not a file"),
        (b"(" * (1 << 20) + b".", "over 1048576 bytes"),
    ],
)
def test_hostile_pickles(tmp_path: Path, pickled: bytes, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        read_torch(archive(tmp_path / "x.pt", pickled))


def test_the_hostile_pickles_have_a_good_twin(tmp_path: Path) -> None:
    data = np.arange(16, dtype="<f4").tobytes()
    found = read_torch(archive(tmp_path / "x.pt", tensor(b"K\x04\x85", b"K\x02\x85", b"K\x03"), data=data))
    np.testing.assert_array_equal(found["weight"], [3, 5, 7, 9])


def test_archives_that_are_none(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    good = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, good)
    (tmp_path / "cut.pt").write_bytes(good.getvalue()[:-40])
    (tmp_path / "text.pt").write_text("hello")
    with zipfile.ZipFile(tmp_path / "empty.pt", "w"):
        pass
    for name in ("old", "cut", "text", "empty", "missing"):
        with pytest.raises(ModelLoadError, match=rf"{name}\.pt: not a file of torch\.save"):
            read_torch(tmp_path / f"{name}.pt")
    packed = archive(tmp_path / "packed.pt", tensor(b"K\x04\x85", b"K\x01\x85"), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelLoadError, match="compressed"):
        read_torch(packed)
