"""sentence-transformers' Router: one model with other modules for queries than for documents.

Reads `router_config.json` (older: `config.json`) of a folder whose `modules.json` starts with a Router. Reference:
sentence-transformers, `base/modules/router.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lemni.errors import ModelLoadError
from lemni.hub.jsonfile import read_json


@dataclass(frozen=True)
class Module:
    """Attributes:
    type: as in `modules.json`, such as "sentence_transformers.models.Transformer".
    path: its folder.
    """

    type: str
    path: Path

    @property
    def name(self) -> str:
        """The name of its class."""
        return self.type.rpartition(".")[2]


@dataclass(frozen=True)
class Router:
    """Attributes:
    routes: the modules that an input goes through, by the name of the route.
    default: the route of an input that names none.
    """

    routes: dict[str, tuple[Module, ...]]
    default: str

    @property
    def modules(self) -> tuple[Module, ...]:
        """Of all routes."""
        return tuple(module for route in self.routes.values() for module in route)

    @property
    def transformer(self) -> Path | None:
        """The folder of the first transformer, or None if no route has one."""
        return next((m.path for m in self.modules if m.name in ("Transformer", "MLMTransformer")), None)


def read_router(folder: Path) -> Router:
    """The router in a folder.

    Raises:
        ModelLoadError: its file is missing or broken, or a module's path leads out of the folder.
    """
    file = next((f for f in (folder / "router_config.json", folder / "config.json") if f.exists()), None)
    if file is None:
        raise ModelLoadError(f"{folder}: a Router without router_config.json")
    config = read_json(file)
    try:
        modules = {
            str(key): Module(str(kind), _inside(folder, str(key), file)) for key, kind in config["types"].items()
        }
        routes = {str(name): tuple(modules[key] for key in keys) for name, keys in config["structure"].items()}
        default: Any = (config.get("parameters") or {}).get("default_route") or next(iter(routes))
    except (KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ModelLoadError(f"{file}: not the configuration of a Router: {error!r}") from error
    if default not in routes:
        raise ModelLoadError(f"{file}: the default route {default!r} is none of {', '.join(routes)}")
    return Router(routes, default)


def _inside(folder: Path, name: str, file: Path) -> Path:
    path = folder / name
    # Files of a Hugging Face cache are links to blobs; folders are real.
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ModelLoadError(f"{file}: the module path {name!r} leads out of the model's folder")
    return path
