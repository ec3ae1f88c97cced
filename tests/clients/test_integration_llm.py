"""lemni.integrations.llm: the commands of `llm`, which finds the plugin by the entry point in pyproject.toml."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tomllib
from numpy.typing import NDArray

from tests.clients import environments
from tests.clients.conftest import DOCUMENTS, KEY, MODEL, QUERY, TEXTS
from tests.clients.zoo import Zoo
from tests.server.live import free_port
from tests.tiny_multimodal import DIMENSIONS, picture

Command = Callable[..., str]
Llm = Callable[[str], Command]


@pytest.fixture(scope="module")
def metadata(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with what pip would write about Lemni: its entry points."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    ((name, module),) = project["entry-points"]["llm"].items()
    folder = tmp_path_factory.mktemp("metadata")
    written = folder / f"lemni-{project['version']}.dist-info"
    written.mkdir()
    (written / "METADATA").write_text(f"Metadata-Version: 2.1\nName: lemni\nVersion: {project['version']}\n")
    (written / "entry_points.txt").write_text(f"[llm]\n{name} = {module}\n")
    return str(folder)


@pytest.fixture
def llm(metadata: str, tmp_path: Path) -> Llm:
    """Makes a function that runs an `llm` command with the server at a URL and prints what it prints."""

    def at(url: str, **variables: str) -> Command:
        environ = {"PYTHONPATH": f"{environments.SOURCE}:{metadata}", "LLM_USER_PATH": str(tmp_path), "LEMNI_URL": url}
        return lambda *arguments: environments.printed("clients", ["llm", *arguments], **environ, **variables)

    return at


def test_the_plugin_is_found(llm: Llm, zoo: Zoo) -> None:
    (plugin,) = [one for one in json.loads(llm(zoo.url)("plugins")) if one["name"] == "lemni"]
    assert plugin["hooks"] == ["register_embedding_models"]
    listed = llm(zoo.url)("embed-models")
    assert f"lemni/{MODEL} (aliases: lemni)" in listed
    assert "lemni/clip" in listed
    assert "ranker" not in listed


def test_embed(llm: Llm, zoo: Zoo, reference: NDArray[np.float32]) -> None:
    command = llm(zoo.url)
    np.testing.assert_allclose(json.loads(command("embed", "-m", "lemni", "-c", TEXTS[0])), reference[0], atol=1e-4)
    named = json.loads(command("embed", "-m", f"lemni/{MODEL}", "-c", TEXTS[4]))
    np.testing.assert_allclose(named, reference[4], atol=1e-4)


def test_embed_a_picture(llm: Llm, zoo: Zoo, tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    file.write_bytes(picture())
    assert len(json.loads(llm(zoo.url)("embed", "-m", "lemni/clip", "--binary", "-i", str(file)))) == DIMENSIONS


def test_collection(llm: Llm, server: str, tmp_path: Path, cosines: NDArray[np.float32]) -> None:
    """Made and searched on a server that wants a key."""
    command = llm(server, LEMNI_API_KEY=KEY)
    file = tmp_path / "documents.json"
    file.write_text(json.dumps([{"id": str(place), "content": text} for place, text in enumerate(DOCUMENTS)]))
    command("embed-multi", "docs", str(file), "-m", "lemni", "--store")
    found = [json.loads(line) for line in command("similar", "docs", "-c", QUERY).splitlines()]
    order = np.argsort(-cosines)
    assert [one["content"] for one in found] == [DOCUMENTS[place] for place in order]
    np.testing.assert_allclose([one["score"] for one in found], cosines[order], atol=1e-4)
    assert f'"lemni/{MODEL}"' in json.dumps(json.loads(command("collections", "list", "--json")))


def test_the_key_of_llm_itself(llm: Llm, server: str) -> None:
    command = llm(server)
    command("keys", "set", "lemni", "--value", KEY)
    assert len(json.loads(command("embed", "-m", "lemni", "-c", "a"))) == 384


@pytest.mark.parametrize("url", ["", "nonsense"], ids=["nobody answers", "no URL"])
def test_without_a_server_llm_goes_on(llm: Llm, url: str) -> None:
    command = llm(url or f"http://127.0.0.1:{free_port()}")
    assert "LemniModel: lemni" in command("embed-models")
    assert "gpt" in command("models")
    with pytest.raises(AssertionError) as failed:
        command("embed", "-m", "lemni", "-c", "a")
    assert "Error: " in str(failed.value)
    assert "Traceback" not in str(failed.value)
