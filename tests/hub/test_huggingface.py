"""Models of a Hugging Face hub: huggingface_hub itself against a local server that answers as the real one does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from lemni import hub
from lemni.cli.app import app
from lemni.config import HubSettings
from lemni.errors import ModelLoadError, ModelNotFound
from lemni.hub.huggingface import choose_files
from tests.hub.fake_hub import FakeHub
from tests.hub.fake_index import tiny_model

EXTRA = {
    "README.md": b"# card",
    "tf_model.h5": b"no",
    "pytorch_model.bin": b"no",
    "onnx/model.onnx": b"no",
    "onnx/config.json": b"no",
    "1_Pooling/config.json": b"{}",
    "tokenizer.json": b"{}",
    "vocab.txt": b"a",
}


def test_downloads_what_is_needed_then_asks_nobody(hub_server: FakeHub, settings: HubSettings) -> None:
    commit = hub_server.add("org/model", tiny_model() | EXTRA)
    files = hub.resolve("org/model", settings, progress=False)
    assert (files.id, files.revision, files.source) == ("org/model", commit, "hub")
    got = {p.relative_to(files.path).as_posix(): p.read_bytes() for p in files.path.rglob("*") if p.is_file()}
    wanted = tiny_model() | {k: EXTRA[k] for k in ("1_Pooling/config.json", "tokenizer.json", "vocab.txt")}
    assert got == wanted
    hub_server.requests.clear()
    again = hub.resolve("org/model", settings)
    assert (again.path, again.source, again.revision) == (files.path, "hf-cache", commit)
    assert hub_server.requests == []


def test_pull_fetches_what_is_newer(hub_server: FakeHub, settings: HubSettings) -> None:
    hub_server.add("org/model", tiny_model(1))
    hub.pull("org/model", settings, progress=False)
    newer = hub_server.add("org/model", tiny_model(2))
    assert hub.resolve("org/model", settings).revision != newer
    assert hub.pull("org/model", settings, progress=False).revision == newer
    assert hub.resolve("org/model", settings).revision == newer
    assert [m.revision == newer for m in hub.show_model("org/model", settings)].count(True) == 1


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub_server: FakeHub, settings: HubSettings) -> None:
    main = hub_server.add("org/model", tiny_model(1))
    tag = hub_server.add("org/model", tiny_model(2), revision="v2")
    assert hub.resolve("org/model", settings, "v2", progress=False).revision == tag
    assert hub.resolve("org/model", settings, tag).source == "hf-cache"
    assert hub.resolve("org/model", settings, main, progress=False).revision == main
    weights = hub.resolve("org/model", settings, "v2").path / "model.safetensors"
    assert hub.TensorStore([weights]).numpy("x")[0, 0] == 2
    with pytest.raises(ModelNotFound, match=r"Hugging Face hub: the model has no revision 'v3'"):
        hub.resolve("org/model", settings, "v3")


def test_bare_names_are_tried_with_sentence_transformers_in_front(hub_server: FakeHub, settings: HubSettings) -> None:
    hub_server.add("sentence-transformers/paraphrase", tiny_model())
    assert hub.resolve("paraphrase", settings, progress=False).source == "hub"
    assert hub.resolve("paraphrase", settings).source == "hf-cache"
    hub_server.add("old-name", tiny_model())
    assert hub.resolve("old-name", settings, progress=False).source == "hub"


@pytest.mark.parametrize(
    ("model", "token", "message"),
    [
        ("org/none", None, r"no such model, or it is private and needs a token"),
        ("org/private", None, r"no such model, or it is private and needs a token"),
        ("org/private", "hf_other", r"the token that was given does not open it"),
        ("org/gated", None, r"the model is gated: accept its terms on its page, then give a token"),
        ("org/gated", "hf_other", r"gated.*the token that was given does not open it"),
        ("not/a/hub/id", None, r"Hugging Face hub: not a hub id"),
        ("white space", None, r"Hugging Face hub: not a hub id"),
    ],
)
def test_a_refusal_says_what_to_do(
    hub_server: FakeHub, settings: HubSettings, model: str, token: str | None, message: str
) -> None:
    for name in ("gated", "private"):
        hub_server.add(f"org/{name}", tiny_model())
        getattr(hub_server, name).add(f"org/{name}")
    with pytest.raises(ModelNotFound, match=message) as caught:
        hub.resolve(model, settings.model_copy(update={"hf_token": token}))
    assert str(token) not in caught.value.message


@pytest.mark.parametrize("name", ["gated", "private"])
def test_a_token_opens(hub_server: FakeHub, settings: HubSettings, name: str) -> None:
    hub_server.add("org/model", tiny_model())
    getattr(hub_server, name).add("org/model")
    opened = settings.model_copy(update={"hf_token": hub_server.token})
    assert hub.resolve("org/model", opened, progress=False).source == "hub"


def test_offline_uses_the_cache_and_no_network(hub_server: FakeHub, settings: HubSettings) -> None:
    hub_server.add("org/model", tiny_model())
    offline = settings.model_copy(update={"offline": True})
    with pytest.raises(ModelNotFound, match=r"hub: not asked, because of offline mode[\s\S]*without --offline"):
        hub.resolve("org/model", offline)
    assert hub_server.requests == []
    hub.resolve("org/model", settings, progress=False)
    hub_server.requests.clear()
    assert hub.resolve("org/model", offline).source == "hf-cache"
    assert hub_server.requests == []


def test_a_half_downloaded_model_is_completed(hub_server: FakeHub, settings: HubSettings) -> None:
    hub_server.add("org/model", tiny_model())
    path = hub.resolve("org/model", settings, progress=False).path
    (path / "model.safetensors").unlink()
    with pytest.raises(ModelNotFound, match=r"Hugging Face cache: only in part: no weights that may be loaded"):
        hub.resolve("org/model", settings.model_copy(update={"offline": True}))
    assert hub.resolve("org/model", settings, progress=False).source == "hub"
    assert (path / "model.safetensors").read_bytes() == tiny_model()["model.safetensors"]


def test_what_transformers_alone_has_cached_is_completed(hub_server: FakeHub, settings: HubSettings) -> None:
    """AutoModel fetches no modules.json: taken as it is, such a copy would pool otherwise than the model says."""
    from huggingface_hub import hf_hub_download

    modules = [{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
    files = {"modules.json": json.dumps(modules).encode(), "1_Pooling/config.json": b"{}"}
    hub_server.add("org/model", tiny_model() | files)
    for name in tiny_model():
        hf_hub_download("org/model", name)
    offline = settings.model_copy(update={"offline": True})
    with pytest.raises(ModelNotFound, match=r"only in part: no modules\.json in .*give that folder to use it"):
        hub.resolve("org/model", offline)
    hf_hub_download("org/model", "modules.json")
    with pytest.raises(ModelNotFound, match=r"only in part: no 1_Pooling/config\.json in"):
        hub.resolve("org/model", offline)
    assert hub.resolve("org/model", settings, progress=False).source == "hub"
    assert (hub.resolve("org/model", offline).path / "1_Pooling" / "config.json").is_file()


def test_pickled_weights_need_a_word(hub_server: FakeHub, settings: HubSettings) -> None:
    hub_server.add("org/pickled", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    with pytest.raises(ModelLoadError, match=r"org/pickled: has only pickled weights .*--trust-pickle"):
        hub.resolve("org/pickled", settings)
    files = hub.resolve("org/pickled", settings, trust_pickle=True, progress=False)
    assert (files.path / "pytorch_model.bin").read_bytes() == b"x"
    with pytest.raises(ModelLoadError, match="--trust-pickle"):  # what one caller trusted, the next need not
        hub.resolve("org/pickled", settings)


def test_pull_takes_pickled_weights_when_told_to(hub_server: FakeHub, settings: HubSettings) -> None:
    hub_server.add("org/pickled", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    arguments = ["pull", "org/pickled", "--cache-dir", str(settings.cache_dir)]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 2
    assert "--trust-pickle" in refused.stderr
    assert CliRunner().invoke(app, [*arguments, "--trust-pickle"]).exit_code == 0
    offline = settings.model_copy(update={"offline": True})
    assert hub.resolve("org/pickled", offline, trust_pickle=True).source == "hf-cache"


def test_models_of_both_caches_are_listed_and_removed(hub_server: FakeHub, settings: HubSettings) -> None:
    commit = hub_server.add("org/model", tiny_model())
    path = hub.pull("org/model", settings, progress=False).path
    listed = hub.list_models(settings)
    assert [(m.id, m.revision, m.cache) for m in listed] == [("org/model", commit, "huggingface")]
    assert listed[0].size_bytes == sum(len(content) for content in tiny_model().values())
    with pytest.raises(ModelNotFound, match=r"'org/modle' is in no cache. Did you mean 'org/model'\?"):
        hub.remove_model("org/modle", settings)
    assert [m.revision for m in hub.remove_model("org/model", settings, commit[:8])] == [commit]
    assert not path.exists()
    assert hub.list_models(settings) == []


@pytest.mark.parametrize(
    ("names", "trust", "expected"),
    [
        (["model.safetensors", "model.fp16.safetensors", "consolidated.safetensors"], False, ["model.safetensors"]),
        (
            ["model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
            False,
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"],
        ),
        (["model.safetensors", "2_Dense/pytorch_model.bin"], False, ["model.safetensors"]),
        (
            ["model.safetensors", "2_Dense/pytorch_model.bin", "2_Dense/model.safetensors"],
            True,
            ["2_Dense/model.safetensors", "model.safetensors"],
        ),
        (["onnx/model.onnx", "onnx/model.onnx_data", "onnx/b.onnx"], True, ["onnx/model.onnx", "onnx/model.onnx_data"]),
        (
            ["onnx/model.onnx", "onnx/Constant_7_attr__value", "onnx/model_int8.onnx", "pytorch_model.bin"],
            False,
            ["onnx/Constant_7_attr__value", "onnx/model.onnx"],
        ),
        (["model.onnx", "pytorch_model.bin"], True, ["pytorch_model.bin"]),
        (["onnx/model.onnx", "onnx/w", "onnx/q.onnx", "onnx/q.onnx_data"], False, ["onnx/model.onnx", "onnx/w"]),
        (["model.safetensors", "2_Dense/pytorch_model.bin"], True, ["model.safetensors"]),
        (["pytorch_model.bin", "rust_model.ot"], True, ["pytorch_model.bin"]),
        (["0_StaticEmbedding/model.safetensors"], False, ["0_StaticEmbedding/model.safetensors"]),
        (["a.json", "x/y/z.json", "tf/b.json", "checkpoint-1/c.json", "m.onnx"], True, ["a.json", "m.onnx"]),
    ],
)  # fmt: skip
def test_which_files_are_needed(names: list[str], trust: bool, expected: list[str]) -> None:
    assert choose_files(names, trust, "org/model") == expected


def test_a_repository_without_weights_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="org/model: holds no weights"):
        choose_files(["config.json", "tf_model.h5"], True, "org/model")


def test_folders_and_the_own_cache_do_without_huggingface_hub(minilm: hub.ModelFiles, tmp_path: Path) -> None:
    import subprocess
    import sys

    code = """
import sys
from lemni import hub
from lemni.config import DEFAULT_MODEL, HubSettings
hub.describe(hub.resolve(sys.argv[1], HubSettings()))
assert hub.resolve(DEFAULT_MODEL, HubSettings()).source == "cache"
heavy = {"huggingface_hub", "httpx", "torch", "transformers", "tqdm", "importlib.metadata"} & set(sys.modules)
print(sorted(heavy))
"""
    done = subprocess.run([sys.executable, "-c", code, str(minilm.path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[]", "['importlib.metadata']")  # pydantic's own


def test_a_hub_that_cannot_be_reached_is_one_of_the_places_tried(
    settings: HubSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelNotFound, match=r"Hugging Face hub: cannot be reached"):
        hub.resolve("org/anything", settings)
