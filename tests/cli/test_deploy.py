"""`lemni deploy` as a process, on a Ray cluster that it begins itself; and what all commands' options share."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from importlib import import_module

import httpx
import numpy as np
import pytest

import lemni
from lemni.cli.app import COMMANDS
from tests.bulk.conftest import FAST


@pytest.mark.parametrize("name", COMMANDS)
def test_no_flag_of_a_command_means_two_things(name: str) -> None:
    module, _, attribute = COMMANDS[name].partition(":")
    command = getattr(import_module(module), attribute)
    flags = Counter(flag for param in command.params for flag in (*param.opts, *param.secondary_opts))
    assert [flag for flag, count in flags.items() if count > 1] == []


def test_deployed_and_ended() -> None:
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "lemni", "deploy", "--ray", FAST, "--served-name", "static", "--port", str(port)]
    with subprocess.Popen(
        [*command, "--replicas", "1:2", "--cpus", "0.1"],
        stdout=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
    ) as deployed:
        assert deployed.stdout is not None
        said = deployed.stdout.readline()
        try:
            assert said == f"Lemni is ready at http://127.0.0.1:{port}, docs at /docs: static, on Ray\n"
            with lemni.Client(f"http://127.0.0.1:{port}", model="static") as client, lemni.load(FAST) as model:
                np.testing.assert_allclose(client.embed("a cat"), model.embed("a cat"), atol=1e-6)
        finally:
            deployed.send_signal(signal.SIGTERM)
    assert deployed.returncode == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/health")
