"""lemni.integrations.llm: the commands of `llm`, which finds the plugin by the entry point in pyproject.toml."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tomllib

from tests.clients import environments
from tests.clients.conftest import KEY, MODEL
from tests.clients.zoo import Zoo
from tests.server.live import free_port
from tests.tiny_multimodal import DIMENSIONS, picture

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Command = Callable[..., str]
Llm = Callable[[str], Command]
PAGE = Path(__file__).parents[2] / "docs" / "integrations.md"


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
    """For a server's URL a function that runs a command with it and returns what it prints."""

    def at(url: str) -> Command:
        environ = {"PYTHONPATH": f"{environments.SOURCE}:{metadata}", "LLM_USER_PATH": str(tmp_path), "LEMNI_URL": url}
        return lambda *command: environments.printed("clients", command, **environ)

    return at


def test_models(llm: Llm, zoo: Zoo) -> None:
    listed = llm(zoo.url)("llm", "embed-models")
    assert f"lemni/{MODEL} (aliases: lemni)" in listed
    assert "lemni/clip" in listed
    assert "ranker" not in listed


def test_embed_a_picture(llm: Llm, zoo: Zoo, tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    file.write_bytes(picture())
    assert len(json.loads(llm(zoo.url)("llm", "embed", "-m", "lemni/clip", "--binary", "-i", str(file)))) == DIMENSIONS


def test_the_documented_commands(
    llm: Llm, server: str, tmp_path: Path, sentence_transformer: SentenceTransformer
) -> None:
    """As they stand, with the key that `llm keys set lemni` stores."""
    (tmp_path / "keys.json").write_text(json.dumps({"lemni": KEY}))
    (commands,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text("utf-8").partition("## llm")[2], flags=re.S)
    found = llm(server)("bash", "-ec", f"cd {tmp_path}\n{commands}").splitlines()[-1]
    vector = np.frombuffer(bytes.fromhex((tmp_path / "vector.txt").read_text()), "<f4")
    texts = ["A cat sits on the mat.", "Where do cats sleep?", "Cats sleep on sofas."]
    expected, query, document = sentence_transformer.encode(texts, batch_size=1)
    np.testing.assert_allclose(vector, expected, atol=1e-4)
    assert json.loads(found)["content"] == texts[2]
    assert json.loads(found)["score"] == pytest.approx(float(query @ document), abs=1e-4)


def test_a_wrong_url_does_not_break_llm(llm: Llm) -> None:
    assert llm("nonsense")("llm", "embed-models").endswith("lemni\n")


def test_without_a_server_the_error_is_one_line(llm: Llm) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(AssertionError) as failed:
        llm(url)("llm", "embed", "-m", "lemni", "-c", "a")
    (line,) = [line for line in str(failed.value).splitlines() if "Error: " in line]
    assert url in line
    assert "Traceback" not in str(failed.value)
