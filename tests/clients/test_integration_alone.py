"""lemni.client works with the few packages that it needs, and each integration says what it lacks."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lemni.errors import MissingExtra
from tests.clients import environments
from tests.clients.conftest import DOCUMENTS, MODEL, QUERY, TEXTS
from tests.clients.zoo import Zoo

# The names that they are imported by. httpx brings those of the second line.
PACKAGES = ["cachetools", "dotenv", "httpx", "numpy", "orjson", "tqdm", "typing_extensions"]
BEHIND_HTTPX = ["anyio", "certifi", "h11", "httpcore", "idna", "sniffio"]


@pytest.fixture(scope="module")
def answers(zoo: Zoo) -> dict[str, Any]:
    arguments = {"url": zoo.url, "model": MODEL, "texts": TEXTS, "query": QUERY, "documents": DOCUMENTS}
    arguments["packages"] = [*PACKAGES, *BEHIND_HTTPX]
    program = Path(__file__).with_name("integration_alone_program.py")
    result: dict[str, Any] = environments.run("clients", program, arguments, PYTHONPATH=environments.SOURCE)
    return result


@pytest.mark.parametrize("case", ["vectors", "cached", "async"])
def test_vectors(answers: dict[str, Any], same: Callable[[object], None], case: str) -> None:
    same(answers[case])


def test_everything_else(answers: dict[str, Any], cosines: NDArray[np.float32]) -> None:
    order = np.argsort(-cosines)
    assert [place for place, _ in answers["ranks"]] == order.tolist()
    np.testing.assert_allclose([score for _, score in answers["ranks"]], cosines[order], atol=1e-4)
    np.testing.assert_allclose(answers["similarity"], cosines, atol=1e-4)
    assert MODEL in answers["models"]
    assert answers["sparse"] > 0
    assert answers["rows"] > 0
    assert answers["labels"] == len(DOCUMENTS)


def test_no_server_no_engine(answers: dict[str, Any]) -> None:
    assert set(answers["lemni"]) <= {"client", "errors", "ranking", "types"}


@pytest.mark.parametrize(
    ("module", "package", "missing"),
    [
        ("langchain", "langchain-core", "langchain_core"),
        ("llama_index", "llama-index-core", "llama_index"),
        ("haystack", "haystack-ai", "haystack"),
        ("chroma", "chromadb", "chromadb"),
        ("qdrant", "qdrant-client", "qdrant_client"),
        ("llm", "llm", "llm"),
    ],
)
def test_a_missing_package_is_named_with_the_remedy(
    module: str, package: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another test may have imported it in this process.
    for name in [name for name in sys.modules if name.startswith(f"{missing}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, f"lemni.integrations.{module}", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    extra = module.replace("_", "-")
    with pytest.raises(MissingExtra, match=rf"'{package}'.*pip install 'lemni\[{extra}\]'"):
        importlib.import_module(f"lemni.integrations.{module}")
