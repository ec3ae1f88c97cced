"""The server process: bind the port, load the models while it is open already, serve, and drain when told to stop.

Light to import; the web framework is imported while the models load in a thread. Called by `lemni serve`.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from lemni.config import ServerSettings, Settings
from lemni.errors import ConfigError
from lemni.server.grpc import check_installed

if TYPE_CHECKING:
    from lemni.server.models import Loaded


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what runs within `drain_timeout_s` and return.

    Says on stdout, in one line, where it listens and what it serves, once it can answer.

    Raises:
        ConfigError: the address cannot be bound, or two models share a name.
        SetupError: a model cannot be found or loaded.
    """
    listener = bind(settings.server)
    if settings.server.grpc_port is not None:
        check_installed()
        bind(settings.server, "grpc_port").close()  # its own server binds it, too late for a good message
    loading = _in_a_thread(settings)
    try:
        from lemni.server.process import run

        longest_s = settings.engine.request_timeout_s
        run(listener, loading, settings.server, longest_s, settings.media, settings.hub.cache_dir)
    finally:
        listener.close()
        if loading.done() and loading.exception() is None:
            loading.result().close()
    if not loading.done():
        # Stopped while loading: native code in that thread must not meet an interpreter that is being taken down.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def bind(settings: ServerSettings, option: str = "port") -> socket.socket:
    """A listening socket on the port that a setting names; 0 takes a free one. Raises ConfigError."""
    host, port = settings.host, getattr(settings, option)
    try:
        # IPv4 first: "localhost" is 127.0.0.1 to most clients.
        found = sorted(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE))
    except (OSError, UnicodeError) as error:  # UnicodeError: a part of the name is too long to be one
        raise ConfigError(f"host {host!r} is unknown: {getattr(error, 'strerror', None) or error}") from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            flag = option.replace("_", "-")
            raise ConfigError(f"port {port} on {host} is in use; choose another with --{flag}, or 0 for any") from error
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener


def _in_a_thread(settings: Settings) -> Future[Loaded]:
    loading: Future[Loaded] = Future()
    loading.set_running_or_notify_cancel()

    def load() -> None:
        try:
            from lemni.server.models import load_models

            loading.set_result(load_models(settings))
        except BaseException as error:
            loading.set_exception(error)

    # A daemon, so that a long download does not hold up the end of the process.
    threading.Thread(target=load, name="lemni-load", daemon=True).start()
    return loading
