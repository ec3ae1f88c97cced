"""What the folders promise: imports point down only, `import lemni` is light, the public names are listed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lemni

PACKAGE = Path(lemni.__file__).parent

# From the top down; a module imports its own layer and those below. `client` and `server` know nothing of each other.
LAYERS = [
    "cli",
    "distributed",
    "server",
    "integrations",
    "client",
    "migrate",
    "bulk",
    "stores",
    "quantize",
    "library",
    "export",
    "loading",
    "devices",
    "engine",
    "tasks",
    "media",
    "runtimes",
    "families",
    "ops",
    "hub",
    "config",
]
CLIENT = {"client", "integrations"}
WORDS = {"errors", "ranking", "types"}  # importable from everywhere
HEAVY = ["torch", "transformers", "openvino", "tokenizers", "numpy", "fastapi", "pydantic", "huggingface_hub"]


def layer(module: str) -> str:
    """`lemni.hub.spec` -> "hub"; `lemni` itself -> ""."""
    return [*module.split("."), ""][1]


def imports(path: Path) -> list[str]:
    modules: list[str] = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            modules.append(node.module)
    return [module for module in modules if module == "lemni" or module.startswith("lemni.")]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if own in ("__init__", "__main__"):
        return
    for module in imports(path):
        target = layer(module)
        if target in WORDS or target == "":
            continue
        assert own not in WORDS or target in WORDS, f"{path} imports {module}"
        assert own != "server" or target not in CLIENT, f"{path} imports {module}: the server knows no client"
        assert own not in CLIENT or target in CLIENT, f"{path} imports {module}: the client knows no server or engine"
        assert LAYERS.index(own) <= LAYERS.index(target), (
            f"{path} ({own}) imports {module} ({target}), which is above it"
        )


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_loads_nothing_heavy() -> None:
    assert loaded_after("import lemni") == set()


def test_the_client_is_light() -> None:
    assert loaded_after("import lemni.client") == set()
    assert loaded_after("import lemni; lemni.Client, lemni.AsyncClient") == {"numpy"}


def test_serving_on_a_cpu_needs_no_torch() -> None:
    heavy = loaded_after("import lemni.library, lemni.server, lemni.runtimes.openvino")
    assert heavy.isdisjoint({"torch", "transformers"})


def test_public_names() -> None:
    assert sorted(lemni.__all__) == sorted(
        [
            *(
                "AsyncClient",
                "Audio",
                "Chunks",
                "Client",
                "Embedder",
                "Engine",
                "Image",
                "LemniError",
                "Mixed",
                "ModelCard",
            ),
            *("Options", "Pair", "Request", "Result", "SparseVector", "load", "ray_app"),
        ]
    )
    for name in lemni.__all__:
        assert getattr(lemni, name).__name__ == name
        assert name in dir(lemni)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        lemni.nonsense  # noqa: B018
