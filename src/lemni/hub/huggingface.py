"""Models of the Hugging Face hub: its local cache, and downloads of just the files that are needed.

huggingface_hub does the work and reads its own environment (HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE). It is
slow to import, so nothing here runs before a folder and Lemni's own cache have been looked at.
"""

from __future__ import annotations

import fnmatch
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lemni.errors import ModelLoadError, ModelNotFound
from lemni.hub.cache import CachedModel
from lemni.hub.graphs import GraphWish, choose_graph
from lemni.hub.jsonfile import read_json_value
from lemni.hub.weights import KINDS, file_names, find, parts_of, weight_files

_TEXT_PATTERNS = ("*.json", "*.txt", "*.model", "*.jinja", "*.py", "*.tiktoken", "*.spm")
# BGE-M3's extra layers; the pickled ones are read without running code (`lemni.hub.torch_pickle`).
_LAYERS = tuple(f"{name}_linear.{suffix}" for name in ("sparse", "colbert") for suffix in ("pt", "safetensors"))
_MODULES = "modules.json"
# Folders of other programs' exports; their configuration is not the model's.
_EXPORTS = ("onnx", "openvino", "coreml", "tf", "flax", "gguf", "mlx")


def cached(
    model_id: str,
    revision: str | None,
    trust_pickle: bool,
    graph: GraphWish | None = None,
    *,
    in_part: bool = False,
) -> Path:
    """The snapshot folder of a model in the local Hugging Face cache. Never uses the network.

    Args:
        in_part: take a copy that can be used, although the hub has files that would be taken instead.

    Raises:
        ModelNotFound: it is not there, or only in part; the message says which.
    """
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = (try_to_load_from_cache(model_id, name, revision=revision) for name in ("config.json", "modules.json"))
        path = next((Path(file) for file in found if isinstance(file, str)), None)
    except HFValidationError:
        raise ModelNotFound("not a hub id") from None
    if path is None:
        raise ModelNotFound(f"not in {constants.HF_HUB_CACHE}")
    folder = path.parent
    _require_complete(folder, trust_pickle, graph or GraphWish())
    if not (folder / _MODULES).exists() and not _no_modules_mark(folder).exists():
        # transformers alone never fetches modules.json; without it the vectors would be silently wrong.
        raise ModelNotFound(f"only in part: no {_MODULES} in {folder}; give that folder to use it as it is")
    if not in_part:
        _require_same(folder, model_id, trust_pickle, graph)
    return folder


def download(
    model_id: str,
    revision: str | None,
    token: str | None,
    trust_pickle: bool,
    progress: bool | None = None,
    graph: GraphWish | None = None,
) -> Path:
    """Download the needed files of a model into the Hugging Face cache; returns the snapshot folder.

    Raises:
        ModelNotFound: the hub does not have it, does not show it to this user, or cannot be reached.
        ModelLoadError: it is there, but holds only weights that may not be loaded.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    api = HfApi(token=token, library_name="lemni")
    try:
        info = api.model_info(model_id, revision=revision)
        names = [file.rfilename for file in info.siblings or ()]
        wanted = choose_files(names, trust_pickle, model_id, graph)
        folder = snapshot_download(
            model_id,
            revision=revision,
            token=token,
            library_name="lemni",
            allow_patterns=[_literal(name) for name in wanted],
            tqdm_class=_bars(progress),
        )
    except GatedRepoError:
        raise ModelNotFound(
            f"the model is gated: accept its terms on its page, then give a token (--hf-token, HF_TOKEN or `hf auth "
            f"login`){_if_token(token)}"
        ) from None
    except RevisionNotFoundError:
        raise ModelNotFound(f"the model has no revision {revision!r}") from None
    except RepositoryNotFoundError:
        raise ModelNotFound(
            f"no such model, or it is private and needs a token (--hf-token or HF_TOKEN){_if_token(token)}"
        ) from None
    except HFValidationError:
        raise ModelNotFound("not a hub id") from None
    except OfflineModeIsEnabled:
        raise ModelNotFound("HF_HUB_OFFLINE is set") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelNotFound(f"cannot be reached: {_first_line(error)}") from error
    except Exception as error:  # httpx's and requests' connection errors share no base class
        if not _is_transport_error(error):
            raise
        raise ModelNotFound(f"cannot be reached: {_first_line(error)}") from error
    _require_complete(Path(folder), trust_pickle, graph or GraphWish())
    if _MODULES not in wanted:
        mark = _no_modules_mark(Path(folder))
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    if info.sha == Path(folder).name:
        listing = _listing(Path(folder))
        listing.parent.mkdir(exist_ok=True)
        part = listing.with_name(f"{listing.name}.{os.getpid()}.part")
        part.write_text(json.dumps(sorted(names)), "utf-8")
        part.replace(listing)
    return Path(folder)


def choose_files(names: Iterable[str], trust_pickle: bool, model_id: str, graph: GraphWish | None = None) -> list[str]:
    """Which files of a repository to download: texts, and per folder one layout of weights.

    Raises:
        ModelLoadError: there are only pickled weights and `trust_pickle` is off, no weights at all, or no exported
            graph such as is wished for.
    """
    names, graph = list(names), graph or GraphWish()
    wanted = {n for n in names if _is_text(n) or n in _LAYERS}
    root_kind = next((kind for kind in KINDS if find(names, kind)), None)
    if root_kind is None and not any(n.endswith(".safetensors") for n in names):
        raise ModelLoadError(f"{model_id}: holds no weights that Lemni reads (safetensors, ONNX or OpenVINO's IR)")
    if root_kind == "pickle" and not trust_pickle:
        raise ModelLoadError(
            f"{model_id}: has only pickled weights (pytorch_model.bin), which can run code when loaded; "
            "pass --trust-pickle if you trust its author"
        )
    # Who trusts pickled weights gets them where the choice is between them and an export.
    order = ("safetensors", "pickle", "graph") if trust_pickle else ("safetensors", "graph")
    if graph.needed:
        chosen, _ = choose_graph(names, graph, model_id)
        order = ("graph", *order) if chosen else order
    for folder in {"", *(n.rpartition("/")[0] for n in names)} - set(_EXPORTS):
        inside = [n[len(folder) + 1 if folder else 0 :] for n in names if n.startswith(f"{folder}/") or not folder]
        for kind in order:
            # Dense layers are read from safetensors only; exports are taken from the root.
            if folder and (kind == "graph" or (kind == "pickle" and folder.endswith("_Dense"))):
                continue
            if row := find(inside, kind):
                wanted |= {f"{folder}/{part}" if folder else part for part in parts_of(inside, row, graph)}
                break
    return sorted(wanted)


def list_cached() -> list[CachedModel]:
    """Models in the Hugging Face cache, one for each revision."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return []
    found = [
        CachedModel(
            id=repository.repo_id,
            revision=revision.commit_hash,
            cache="huggingface",
            origin=repository.repo_id,
            path=revision.snapshot_path,
            size_bytes=revision.size_on_disk,
            time_s=revision.last_modified,
        )
        for repository in repositories
        if repository.repo_type == "model"
        for revision in repository.revisions
    ]
    return sorted(found, key=lambda m: (m.id, m.revision))


def remove(revision: str) -> None:
    """Delete one revision (a commit) from the Hugging Face cache."""
    from huggingface_hub import constants, scan_cache_dir

    scan_cache_dir(constants.HF_HUB_CACHE).delete_revisions(revision).execute()


def _is_text(name: str) -> bool:
    top, _, rest = name.partition("/")
    if name.count("/") > 1 or (rest and (top in _EXPORTS or top.startswith("checkpoint"))):
        return False
    return any(fnmatch.fnmatchcase(name.rpartition("/")[2], pattern) for pattern in _TEXT_PATTERNS)


def _require_complete(folder: Path, trust_pickle: bool, graph: GraphWish) -> None:
    kinds = KINDS if trust_pickle else ("safetensors", "graph")
    places = [folder, *(p for p in folder.iterdir() if p.is_dir() and p.name.startswith(("0_", "1_", "document_")))]
    try:
        found = {kind for place in places for kind in kinds if weight_files(place, kind)}
        if not found:
            raise ModelNotFound(f"only in part: no weights that may be loaded in {folder}")
        if graph.needed or found == {"graph"}:
            choose_graph(file_names(folder), graph, folder)
        if (folder / _MODULES).exists():
            for module in read_json_value(folder / _MODULES):
                config = folder / str(module["path"]) / "config.json"
                if str(module["type"]).endswith((".Pooling", ".Dense")) and not config.exists():
                    raise ModelNotFound(f"only in part: no {config.relative_to(folder)} in {folder}")
    except ModelLoadError as error:
        raise ModelNotFound(f"only in part: {error.message}") from error
    except (KeyError, TypeError) as error:
        raise ModelNotFound(f"{folder / _MODULES} is not a list of modules") from error


def _require_same(folder: Path, model_id: str, trust_pickle: bool, graph: GraphWish | None) -> None:
    """That nothing is missing of what would be downloaded; of copies by other programs it is not known."""
    listing = _listing(folder)
    if not listing.is_file():
        return
    try:
        wanted = choose_files(map(str, read_json_value(listing)), trust_pickle, model_id, graph)
    except ModelLoadError as error:
        raise ModelNotFound(f"only in part: {error.message}") from error
    if missing := [name for name in wanted if not (folder / name).exists()]:
        raise ModelNotFound(f"only in part: no {missing[0]} in {folder}")


def _listing(folder: Path) -> Path:
    """Where Lemni notes the names of all files that a revision has on the hub."""
    return folder.parent.parent / ".lemni" / f"{folder.name}.json"


def _no_modules_mark(folder: Path) -> Path:
    """Where the Hugging Face cache notes that a revision has no such file."""
    return folder.parent.parent / ".no_exist" / folder.name / _MODULES


def _literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _bars(progress: bool | None) -> type:
    from tqdm import tqdm

    class Bars(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)  # huggingface_hub's own argument
            kwargs["disable"] = None if progress is None else not progress  # None: only on a terminal
            super().__init__(*args, **kwargs)

    return Bars


def _if_token(token: str | None) -> str:
    return "; the token that was given does not open it" if token else ""


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _is_transport_error(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] in (
        *("httpx", "httpx2", "httpcore", "httpcore2"),  # huggingface_hub 1 and 2
        *("requests", "urllib3"),  # before
    )
