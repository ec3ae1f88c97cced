"""The ranges of a model's dimensions, in which int8 and uint8 vectors are counted: measured once, kept in the cache.

What is kept is the raw vectors of a small built-in corpus, not their extremes: ranges for every number of `dimensions`,
normalised or not, follow from them without another forward pass. Knows no model and no engine: whoever has one (the
server, the command line) embeds `calibration_request` with it. Ranges are of texts without a prompt; images of a
two-tower model lie elsewhere.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from lemni.errors import InvalidOutput, InvalidRequest
from lemni.types import ModelCard, Options, Request

log = logging.getLogger(__name__)

MARGIN = 0.5
"""Part of a range's width that is added at either end: a few texts do not reach a model's extremes, and values outside
are cut off. The smallest that keeps the worst of unseen vectors near the mean (`python -m benchmarks output_types`)."""

_KEPT_RANGES = 64


@dataclass(frozen=True, slots=True)
class RangesKey:
    """Whose vectors were measured.

    Attributes:
        model_id: the name it is known by, or its folder.
        revision: commit, version or hash that pins its weights.
        kind: which of its vectors: "dense", "multi_vector".
    """

    model_id: str
    revision: str
    kind: str = "dense"

    @property
    def filename(self) -> str:
        """Readable, and different for another key, corpus or layout of the file."""
        parts = (self.model_id, self.revision, self.kind, *corpus())
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
        return f"{quote(self.model_id.rpartition('/')[2], safe='')[:80]}-{digest}.npy"


def key_of(card: ModelCard) -> RangesKey:
    """Of a model's dense vectors."""
    return RangesKey(card.model_id, card.revision or "", f"dense {card.pooling}".strip())


def calibration_request() -> Request:
    """What gives the raw vectors for `calibrate`: the corpus, behind all interactive work."""
    return Request(corpus(), Options(normalize=False, prompt="", truncate="right"), priority="bulk")


def corpus() -> list[str]:
    """The 256 texts that are measured: short and of many kinds, three fifths English, the rest in many languages."""
    return files("lemni.tasks").joinpath("calibration.txt").read_text("utf-8").splitlines()


def calibrate(embed: Callable[[list[str]], NDArray[np.float32] | Seq[NDArray[np.float32]]]) -> NDArray[np.float32]:
    """The corpus' vectors, for `Ranges.put`.

    Args:
        embed: texts to their raw vectors, neither cut nor normalised by request and without a prompt:
            float32 [n, dim], or one [tokens, dim] per text.

    Returns:
        float32 [rows, dim]; a row per token for multi-vectors.

    Raises:
        InvalidOutput: the model gave NaN or infinity.
    """
    made = embed(corpus())
    vectors = np.asarray(made if isinstance(made, np.ndarray) else np.concatenate(made), dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise InvalidOutput("the model computed NaN or infinity for a text of the calibration corpus")
    return vectors


def ranges_of(
    vectors: NDArray[np.float32], *, dimensions: int | None = None, normalize: bool, margin: float = MARGIN
) -> NDArray[np.float32]:
    """float32 [2, dimensions]: smallest and largest value of each dimension over the rows, widened by `margin`.

    Args:
        vectors: float32 [rows, dim], raw.
        dimensions: cut the rows to this many first; all if not given.
        normalize: whether the vectors that will be converted have unit length.

    Raises:
        InvalidRequest: more dimensions than the rows have.
    """
    if dimensions is not None and not 1 <= dimensions <= vectors.shape[-1]:
        raise InvalidRequest(f"dimensions is {dimensions}: 1 to {vectors.shape[-1]} are possible", param="dimensions")
    vectors = vectors[:, :dimensions]
    if normalize:
        lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
        vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    low, high = vectors.min(axis=0), vectors.max(axis=0)
    wider = margin * (high - low)
    return np.stack([low - wider, high + wider]).astype(np.float32)


class Ranges:
    """The measured ranges of all models, in memory and in files below the cache folder, from the first `put` on.

    Thread-safe; processes may share the folder.
    """

    def __init__(self, cache_dir: Path) -> None:
        self._folder = cache_dir / "ranges"
        self._lock = threading.Lock()
        self._vectors: dict[RangesKey, NDArray[np.float32]] = {}
        self._ranges: dict[tuple[RangesKey, int | None, bool], NDArray[np.float32]] = {}

    def get(
        self, key: RangesKey, *, dimensions: int | None = None, normalize: bool = True
    ) -> NDArray[np.float32] | None:
        """float32 [2, dimensions] as `ranges_of` gives them, or None if this model has not been measured.

        Raises:
            InvalidRequest: more dimensions than the model has.
        """
        with self._lock:
            wanted = (key, dimensions, normalize)
            if wanted not in self._ranges:
                vectors = self._vectors.get(key)
                if vectors is None:
                    vectors = _read(self._folder / key.filename)
                if vectors is None:
                    return None
                self._vectors[key] = vectors
                if len(self._ranges) >= _KEPT_RANGES:
                    self._ranges.clear()
                self._ranges[wanted] = ranges_of(vectors, dimensions=dimensions, normalize=normalize)
            return self._ranges[wanted]

    def of(self, key: RangesKey, card: ModelCard, options: Options) -> NDArray[np.float32] | None:
        """`get` for the vectors that this model gives with these options."""
        normalize = options.normalize
        if normalize is None:  # as `DenseTask.vectors` decides
            normalize = card.normalized or options.dimensions is not None
        return self.get(key, dimensions=options.dimensions, normalize=normalize)

    def put(self, key: RangesKey, vectors: NDArray[np.float32]) -> None:
        """Keep what `calibrate` gave. If another process was first, its measurement holds, here too.

        A folder that cannot be written to costs a measurement at every start, and a warning.
        """
        try:
            kept = _write_once(self._folder / key.filename, vectors)
        except OSError as error:
            log.warning("the int8 ranges of %s are not kept: %s", key.model_id, error)
            kept = vectors
        with self._lock:
            self._vectors[key] = kept
            for known in [known for known in self._ranges if known[0] == key]:
                del self._ranges[known]


def _write_once(path: Path, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the file holds, or, if there is none that can be read, `vectors`, written whole or not at all."""
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if (there := _read(path)) is not None:
            return there
        draft = path.with_suffix(f".draft-{os.getpid()}")
        try:
            with draft.open("wb") as file:
                np.save(file, np.ascontiguousarray(vectors, dtype="<f4"), allow_pickle=False)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    return vectors


def _read(path: Path) -> NDArray[np.float32] | None:
    try:
        with path.open("rb") as file:
            vectors = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        log.warning("%s cannot be used and will be measured again: %s", path, error)
        return None
    if vectors.dtype != np.float32 or vectors.ndim != 2 or not len(vectors) or not np.isfinite(vectors).all():
        log.warning("%s cannot be used and will be measured again: not finite float32 rows", path)
        return None
    return np.asarray(vectors, dtype=np.float32)
