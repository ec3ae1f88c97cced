"""Files of this machine and behind URLs: what they were when they were listed, and opening them only as long as they
are that. Nothing beyond the standard library is imported for a plain local file."""

from __future__ import annotations

import io
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit, urlunsplit

from lemni.errors import InvalidRequest, missing_extra

COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")


@dataclass(frozen=True, slots=True)
class File:
    """One file of an input, as it was when it was found.

    Attributes:
        path: absolute, or a URL.
        size: bytes; None where nobody says.
        stamp: mtime_ns; of a URL its ETag or time; of a Lance dataset its version.
    """

    path: str
    size: int | None
    stamp: int | str | None

    @property
    def remote(self) -> bool:
        return is_url(self.path)

    @property
    def name(self) -> str:
        """For messages and manifests: no password and no signature."""
        return shown(self.path)

    @property
    def compression(self) -> str | None:
        """Its last ending, if that is one of `COMPRESSIONS`."""
        ending = os.path.splitext(bare(self.path))[1].lower()
        return ending if ending in COMPRESSIONS else None

    def identity(self) -> dict[str, Any]:
        return {"path": self.name, "size": self.size, "stamp": self.stamp}


def is_url(place: str) -> bool:
    scheme, mark, _ = place.partition("://")
    return bool(mark) and scheme.replace("+", "").replace("-", "").replace(".", "").isalnum()


def bare(place: str) -> str:
    """A path; of a web address without its query, where an ending would be looked for in vain."""
    return urlsplit(place)._replace(query="", fragment="").geturl() if is_web(place) else place


def shown(place: str) -> str:
    """A path or URL without what may be secret: user, password, and the query of a web address. A path that is not
    UTF-8 has its bytes written out."""
    if not is_url(place):
        return place.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if is_web(place):
        parts = urlsplit(place)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    scheme, _, rest = place.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def is_web(place: str) -> bool:
    return place.startswith(("http://", "https://"))


def failed(place: str, error: BaseException) -> InvalidRequest:
    """The system's or the store's own words, without the secrets of the URL."""
    name = shown(place)
    if isinstance(error, FileNotFoundError):
        return InvalidRequest(f"{name}: no such file")
    words = error.strerror if isinstance(error, OSError) and error.strerror and not is_url(place) else str(error)
    if is_url(place):
        parts = urlsplit(place)
        for secret in (place, parts.query, parts.password):
            if secret:
                words = words.replace(secret, name if secret == place else "…")
    return InvalidRequest(f"{name}: cannot be read: {words or type(error).__name__}")


def filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path in it. Where fsspec lacks a package for it, pyarrow's, if it has one.

    Raises:
        MissingExtra: fsspec is not installed, or the package for this scheme.
        InvalidRequest: no such scheme.
    """
    try:
        import fsspec
    except ImportError:
        raise missing_extra("fsspec", "bulk", f"reading {shown(url)}") from None
    try:
        found = fsspec.core.url_to_fs(url)
    except ImportError as error:
        try:
            from fsspec.implementations.arrow import ArrowFSWrapper
            from pyarrow.fs import FileSystem

            native, path = FileSystem.from_uri(url)
        except Exception:
            raise missing_extra(error.name or str(error), "bulk", f"reading {shown(url)}") from None
        return ArrowFSWrapper(native), path
    except Exception as error:
        raise failed(url, error) from None
    return cast("tuple[Any, str]", found)


def _is_arrow(fs: Any) -> bool:
    return type(fs).__module__ == "fsspec.implementations.arrow"


def describe(place: str) -> File:
    """A file that is there.

    Raises:
        InvalidRequest: it is not, or it is no file that can be read from any place in it (a pipe, a device).
    """
    if not is_url(place):
        path = os.path.abspath(place)
        try:
            found = os.stat(path)
        except OSError as error:
            raise failed(path, error) from None
        if not stat.S_ISREG(found.st_mode):
            raise InvalidRequest(f"{path}: is no file; a pipe is read with '-'")
        return File(path, found.st_size, found.st_mtime_ns)
    fs, path = filesystem(place)
    with suppress(Exception):  # some keep listings; a file system without that has nothing to forget
        fs.invalidate_cache(fs._parent(path))
    try:
        info = fs.info(path)
    except Exception as error:
        raise failed(place, error) from None
    stamp = next((info[key] for key in ("ETag", "etag", "LastModified", "mtime", "created") if info.get(key)), None)
    size = info.get("size")
    return File(place, None if size is None else int(size), None if stamp is None else str(stamp))


def check(file: File) -> None:
    """Raises InvalidRequest if the file is not what it was."""
    if describe(file.path) != file:
        raise changed(file)


def changed(file: File) -> InvalidRequest:
    return InvalidRequest(f"{file.name}: has changed since the job began reading it; start the job again")


def open_raw(file: File, ahead: bool = True) -> BinaryIO:
    """The bytes as they are stored, seekable but from some web servers.

    Args:
        ahead: fetch the next megabytes of a remote file with what is read; for reading from front to end.

    Raises:
        InvalidRequest: it cannot be opened, or is not what it was.
    """
    if not file.remote:
        try:
            handle = open(file.path, "rb")  # noqa: SIM115 - the caller closes it
        except OSError as error:
            raise failed(file.path, error) from None
        found = os.fstat(handle.fileno())
        if (found.st_size, found.st_mtime_ns) != (file.size, file.stamp):
            handle.close()
            raise changed(file)
        return handle
    check(file)
    fs, path = filesystem(file.path)
    try:
        if ahead or _is_arrow(fs):
            return cast(BinaryIO, io.BufferedReader(_Remote(fs.open(path, "rb")), 1 << 20))
        return cast(BinaryIO, fs.open(path, "rb", cache_type="none"))
    except Exception as error:
        raise failed(file.path, error) from None


def open_plain(file: File) -> BinaryIO:
    """The bytes with their compression undone; to be read from front to end."""
    handle = open_raw(file)
    raw: Any
    if file.compression is None:
        return handle
    if file.compression == ".zst":
        try:
            import pyarrow
        except ImportError:
            handle.close()
            raise missing_extra("pyarrow", "bulk", f"reading {file.name}") from None
        raw = pyarrow.CompressedInputStream(pyarrow.PythonFile(handle, mode="r"), "zstd")
    elif file.compression == ".bz2":
        import bz2

        raw = bz2.BZ2File(handle)
    elif file.compression == ".xz":
        import lzma

        raw = lzma.LZMAFile(handle)  # noqa: SIM115 - closed with what it unpacks
    else:
        import gzip

        raw = gzip.GzipFile(fileobj=handle)
    return cast(BinaryIO, _Unpacked(raw, handle))


class _Remote(io.RawIOBase):
    """A file of fsspec as the standard library's readers want one."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._handle.seekable())

    def readinto(self, buffer: Any) -> int:
        data = self._handle.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, place: int, whence: int = 0) -> int:
        return int(self._handle.seek(place, whence))

    def tell(self) -> int:
        return int(self._handle.tell())

    def close(self) -> None:
        if not self.closed:
            self._handle.close()
        super().close()


class _Unpacked(io.BufferedReader):
    """What a decompressor gives; closes the packed file with it."""

    def __init__(self, raw: Any, packed: BinaryIO) -> None:
        super().__init__(raw, 1 << 20)
        self._packed = packed

    def close(self) -> None:
        super().close()
        self._packed.close()


def read_range(file: File, start: int, end: int) -> bytes:
    """Bytes `start` to before `end`, of the file as it was."""
    if not file.remote:
        with open_raw(file) as handle:
            handle.seek(start)
            data = handle.read(end - start)
    else:
        check(file)
        fs, path = filesystem(file.path)
        try:
            if _is_arrow(fs):  # whose `cat_file` cannot read a range from the start
                with fs.open(path, "rb") as handle:
                    handle.seek(start)
                    data = handle.read(end - start)
            else:
                data = fs.cat_file(path, start=start, end=end)
        except Exception as error:
            raise failed(file.path, error) from None
    if len(data) != end - start:
        raise InvalidRequest(f"{file.name}: bytes {start} to {end} were asked for, {len(data)} bytes came")
    return data


def read_all(place: str, limit: int) -> bytes:
    """A small file whole.

    Raises:
        InvalidRequest: it cannot be read, or has more than `limit` bytes.
    """
    file = describe(place)
    if file.size is not None and file.size > limit:
        raise InvalidRequest(f"{file.name}: has {file.size} bytes, over the limit of {limit}")
    with open_raw(file) as handle:
        try:
            return handle.read(limit + 1)[:limit]
        except Exception as error:
            raise failed(place, error) from None


def folder_of(place: str) -> str:
    """What relative paths in a file are relative to."""
    return bare(place).rpartition("/")[0] if is_url(place) else os.path.dirname(place)
