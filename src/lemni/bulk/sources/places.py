"""From what a person names - files, globs, folders, URLs - to the files of one format."""

from __future__ import annotations

import glob as globbing
import json
import os
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

from lemni.bulk.sources.files import File, bare, describe, failed, filesystem, is_url, open_plain, read_all, shown
from lemni.bulk.sources.formats import COMPRESSIBLE, LIKE_TXT, ending, format_of, refuse
from lemni.errors import InvalidRequest

_SNIFFED = 8192
_SMALL = 64 << 20  # bytes of the files that describe a folder


@dataclass(frozen=True, slots=True)
class Found:
    """Files of one format in order, and each one's place as it was named."""

    format: str
    files: tuple[File, ...]
    places: tuple[str, ...]


def find(places: Seq[str], format: str | None, images: bool) -> Found:
    """What the places are together.

    Args:
        format: overrides what the endings say.
        images: the cells are images, so files of images are an input.

    Raises:
        InvalidRequest: one is not there, is of another format than the others, or of none that is known.
    """
    chosen: list[tuple[str, str]] = [row for place in places for row in _expand(place, format, images)]
    first_format, first = chosen[0]
    for other_format, place in chosen:
        if other_format != first_format:
            raise InvalidRequest(
                f"{shown(first)} is {first_format} and {shown(place)} is {other_format}; an input is of one format"
            )
        if other_format == "images" and not images:
            raise InvalidRequest(f"{shown(place)}: is an image; choose images as what is embedded")
    if first_format == "lance":
        from lemni.bulk.sources.lance import describe_dataset

        files = [describe_dataset(place) for _, place in chosen]
    else:
        files = [describe(place) for _, place in chosen]
    known = set()
    for file in files:
        if file.path in known:
            raise InvalidRequest(f"{file.name}: is named twice")
        known.add(file.path)
        if file.compression and first_format not in COMPRESSIBLE:
            raise InvalidRequest(f"{file.name}: {first_format} is not read when it is compressed as a whole; unpack it")
        if first_format == "txt" and format is None and format_of(file.path) is None:
            _sniff(file)
    return Found(first_format, tuple(files), tuple(place for _, place in chosen))


def _expand(place: str, format: str | None, images: bool) -> list[tuple[str, str]]:
    """Formats and places of the files that one place stands for."""
    if is_url(place) and place.startswith("file://"):
        place = place.removeprefix("file://")
    if _is_folder(place):
        return _folder(place.rstrip("/") or place, format, images)
    if _is_file(place):
        return [(_format(place, format), place)]
    if not any(mark in place for mark in "*?["):
        raise InvalidRequest(f"{shown(place)}: no such file or folder")
    matches = sorted(_glob(place))
    files = [one for one in matches if not _is_folder(one)]
    if files:
        return [(_format(one, format), one) for one in files]
    if not matches:
        raise InvalidRequest(f"{shown(place)}: no file matches")
    return [row for one in matches for row in _folder(one, format, images)]


def _format(place: str, format: str | None) -> str:
    if format == "datasets":
        raise InvalidRequest(f"{shown(place)}: is a file, and datasets are folders")
    found = format or format_of(place)
    if found == "":
        raise refuse(place)
    return found or "txt"


def _sniff(file: File) -> None:
    """Raises InvalidRequest if a file whose ending says nothing is not text."""
    with open_plain(file) as handle:
        try:
            start = handle.read(_SNIFFED)
        except Exception as error:
            raise failed(file.path, error) from None
    if b"\0" in start and start[:2] not in (b"\xff\xfe", b"\xfe\xff"):  # those are told about by their name
        raise refuse(file.path)


def _folder(folder: str, format: str | None, images: bool) -> list[tuple[str, str]]:
    """What is in a folder: a dataset of `datasets` or Lance, or its files of the one format that it has."""
    if format in (None, "datasets") and (_exists(f"{folder}/dataset_dict.json") or _exists(f"{folder}/state.json")):
        return _dataset(folder)
    if format == "datasets":
        raise InvalidRequest(f"{shown(folder)}: has no state.json, so it is no folder of datasets' save_to_disk")
    if format in (None, "lance") and (ending(folder) == ".lance" or _exists(f"{folder}/_versions")):
        return [("lance", folder)]
    found: dict[str, list[str]] = {}
    every = sorted(_files_in(folder))
    for place in every:
        known = format_of(place)
        if format is not None:
            if known == format:
                found.setdefault(format, []).append(place)
        elif known and known != "lance" and (known == "images") <= images:
            found.setdefault(known, []).append(place)
    if images and format is None and "images" in found:
        found = {"images": found["images"]}
    if not found and format in (None, "txt") and (notes := [one for one in every if ending(one) in LIKE_TXT]):
        found = {"txt": notes}
    if not found:
        wanted = f"{format} file" if format else "file that can be read"
        raise InvalidRequest(f"{shown(folder)}: no {wanted} in this folder")
    if len(found) > 1:
        there = ", ".join(f"{len(places)} of {name}" for name, places in found.items())
        raise InvalidRequest(
            f"{shown(folder)}: has files of several formats ({there}); name one (--input-format)", param="format"
        )
    return [(name, place) for name, places in found.items() for place in places]


def _dataset(folder: str) -> list[tuple[str, str]]:
    """The Arrow files of a folder that `datasets` saved."""
    if _exists(f"{folder}/dataset_dict.json"):
        splits = _described(f"{folder}/dataset_dict.json").get("splits", [])
        raise InvalidRequest(
            f"{shown(folder)}: has the splits {', '.join(map(str, splits))}; choose one, such as "
            f"{shown(folder)}/{splits[0] if splits else 'train'}"
        )
    state = _described(f"{folder}/state.json")
    if state.get("_indices_data_files"):
        raise InvalidRequest(f"{shown(folder)}: its rows were chosen by indices; save it again after flatten_indices()")
    try:
        names = [str(row["filename"]) for row in state["_data_files"]]
    except (KeyError, TypeError):
        raise InvalidRequest(f"{shown(folder)}/state.json: does not name the files of a dataset") from None
    if not names:
        raise InvalidRequest(f"{shown(folder)}: no file that can be read in this folder")
    return [("arrow", f"{folder}/{name}") for name in names]


def _described(place: str) -> dict[str, Any]:
    try:
        found = json.loads(read_all(place, _SMALL))
    except ValueError as error:
        raise InvalidRequest(f"{shown(place)}: is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidRequest(f"{shown(place)}: is no object")
    return found


def _exists(place: str) -> bool:
    if not is_url(place):
        return os.path.exists(place)
    fs, path = filesystem(place)
    return bool(_asked(place, fs.exists, path))


def _is_folder(place: str) -> bool:
    if not is_url(place):
        return os.path.isdir(place)
    if bare(place) != place or place.startswith(("http://", "https://")):
        return False
    fs, path = filesystem(place)
    return bool(_asked(place, fs.isdir, path))


def _is_file(place: str) -> bool:
    if not is_url(place):
        return os.path.exists(place)
    fs, path = filesystem(place)
    return bool(_asked(place, fs.exists, path))


def _glob(place: str) -> list[str]:
    if not is_url(place):
        return globbing.glob(place, recursive=True)
    fs, path = filesystem(place)
    return [fs.unstrip_protocol(one) for one in _asked(place, fs.glob, path)]


def _files_in(folder: str) -> list[str]:
    """All, of folders inside of it too; not those that begin with "." or "_", which are marks and notes."""
    if is_url(folder):
        fs, path = filesystem(folder)
        every = [fs.unstrip_protocol(one) for one in _asked(folder, fs.find, path)]
    else:
        every = [f"{at}/{name}" for at, _, names in os.walk(folder) for name in names]
    return [one for one in every if not any(part.startswith((".", "_")) for part in one[len(folder) :].split("/"))]


def _asked(place: str, call: object, path: str) -> list[str]:
    try:
        return call(path)  # type: ignore[operator, no-any-return]
    except Exception as error:
        raise failed(place, error) from None
