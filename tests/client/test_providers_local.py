"""Models in this process: loaded on first use, shared by clients with the same settings, freed by the last one."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import lemni
from lemni.client import LocalEmbeddingClient, local_provider
from tests.server.live import wait_for
from tests.tasks.tiny import save_bert

pytestmark = pytest.mark.usefixtures("bare")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT."""
    return save_bert(tmp_path_factory.mktemp("local") / "bert")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Every model that is loaded meanwhile, really; all are free at the end."""
    made: list[Any] = []
    load = lemni.load

    def counted(*model: str, **settings: Any) -> Any:
        made.append(load(*model, **settings))
        return made[-1]

    monkeypatch.setattr(lemni, "load", counted, raising=False)
    yield made
    gc.collect()
    wait_for(lambda: all(model._closed for model in made))
    assert local_provider._shared == {}


def test_clients_with_the_same_settings_share_a_model(folder: Path, loads: list[Any]) -> None:
    clients = [LocalEmbeddingClient(str(folder), device="cpu", cache=None) for _ in range(6)]
    assert loads == []  # not before it is used
    with ThreadPoolExecutor(6) as pool:
        rows = list(pool.map(lambda client: client.generate_embedding("a text"), clients))
    assert rows == [rows[0]] * 6
    assert len(loads) == 1
    for client in clients[1:]:
        client.close()
    assert not loads[0]._closed
    assert clients[0].generate_embedding("a text") == rows[0]
    asyncio.run(clients[0].aclose())
    assert loads[0]._closed


def test_other_settings_are_another_model(folder: Path, loads: list[Any], tmp_path: Path) -> None:
    with (
        LocalEmbeddingClient(str(folder), device="cpu") as one,
        LocalEmbeddingClient(str(folder), device="cpu", cache_dir=str(tmp_path)) as other,
    ):
        assert one.generate_embedding("a text") == other.generate_embedding("a text")
        assert len(loads) == 2


def test_a_client_that_nobody_holds_gives_its_model_back(folder: Path, loads: list[Any]) -> None:
    client = LocalEmbeddingClient(str(folder), device="cpu")
    client.generate_embedding("a text")
    del client
    # The fixture waits for it.


def test_it_is_the_model_of_the_library(folder: Path, loads: list[Any]) -> None:
    texts = ["a text", "", "another one that is longer"]
    with lemni.load(str(folder), device="cpu") as embedder:
        raw, cut = embedder.embed(texts), embedder.embed(texts, dimensions=8)
        size = embedder.card.dimensions
    with LocalEmbeddingClient(str(folder), device="cpu", use_l2_norm=False) as client:
        np.testing.assert_array_equal(client.generate_embedding(texts), raw)
        assert client.get_model_info()["capabilities"] == ["embed", "score", "tokens"]
        assert client.get_available_models() == [str(folder)]
    with LocalEmbeddingClient(str(folder), 8, device="cpu") as client:
        np.testing.assert_allclose(client.generate_embedding(texts), cut, atol=1e-6)
    assert size is not None
    with LocalEmbeddingClient(str(folder), size + 3, device="cpu", norm_method="truncate_or_pad") as client:
        unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        np.testing.assert_allclose(client.generate_embedding(texts), np.pad(unit, ((0, 0), (0, 3))), atol=1e-6)


def test_a_folder_with_other_weights_is_another_model(tmp_path: Path, loads: list[Any]) -> None:
    """For a cache that outlives the program: the same path, and nothing but its files says which model it has."""
    folder, found = save_bert(tmp_path / "model"), []
    weights = folder / "model.safetensors"
    for hits in (0, 1, 0):
        if found and not hits:
            save_file({name: 2 * value for name, value in load_file(weights).items()}, weights)
        with LocalEmbeddingClient(str(folder), device="cpu", cache=f"disk:{tmp_path / 'cache'}") as client:
            found.append(client.generate_embedding("a text"))
            assert client.cache is not None
            assert client.cache.statistics.hits == hits
    assert found[0] == found[1] != found[2]


def test_a_program_that_closes_nothing_ends(folder: Path) -> None:
    program = (
        "import sys\nfrom lemni.client import create_local_client\n"
        "client = create_local_client(sys.argv[1], device='cpu')\n"
        "print(len(client.generate_embedding('a text')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(folder)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 0


def test_a_client_without_the_engine_says_so() -> None:
    program = (
        "import sys; sys.modules['pydantic'] = None\n"
        "from lemni.client import EmbeddingGenerationError, create_local_client\n"
        "client = create_local_client()\n"
        "assert not client.health_check()\n"
        "try: client.generate_embedding('x')\n"
        "except EmbeddingGenerationError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "'pydantic' is missing: pip install lemni" in done.stdout
