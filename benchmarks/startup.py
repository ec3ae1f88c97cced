"""Installed size, time from `lemni serve` to the first vector, and memory while serving the default model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.texts import mixed

ROOT = Path(__file__).parents[1]


def installed_mb() -> float:
    """MB (10^6 bytes on disk) of an empty virtual environment after `pip install .`"""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([f"{folder}/bin/pip", "install", "--quiet", str(ROOT)], check=True)
        used = subprocess.run(["du", "-sk", folder], check=True, capture_output=True, text=True).stdout
    return int(used.split()[0]) * 1024 / 1e6


@contextmanager
def served(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process on a free port, and its address, as soon as it says that it is ready."""
    command = [str(Path(sys.executable).with_name("lemni")), "serve", "--port", "0", "--device", "cpu", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if found := re.search(r"http://[\d.]+:\d+", line):
                yield process, found.group()
                return
        raise RuntimeError("the server has stopped")
    finally:
        process.terminate()
        process.wait()


def embed(address: str, texts: list[str]) -> None:
    body = json.dumps({"input": texts, "encoding_format": "base64"}).encode()
    request = urllib.request.Request(f"{address}/v1/embeddings", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        assert len(json.load(response)["data"]) == len(texts)


def memory_mb(pid: int, key: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{key}:\s+(\d+) kB", status).group(1)) * 1024 / 1e6  # type: ignore[union-attr]


def main(starts: int = 5) -> None:
    seconds = []
    for number in range(starts + 1):
        start = time.perf_counter()
        with served() as (process, address):
            embed(address, ["hello"])
            if number:
                seconds.append(time.perf_counter() - start)
            if number == starts:
                idle = memory_mb(process.pid, "VmRSS")
                for seed in range(5):
                    embed(address, mixed(500, seed))
                busy, peak = memory_mb(process.pid, "VmRSS"), memory_mb(process.pid, "VmHWM")
    print(f"start to first vector, warm file cache   {median(seconds):8.2f} s (median of {starts})")
    print(f"resident after the first vector          {idle:8.0f} MB")
    print(f"resident after 2,500 texts               {busy:8.0f} MB")
    print(f"peak                                     {peak:8.0f} MB")
    print(f"installed, with the environment          {installed_mb():8.0f} MB")


if __name__ == "__main__":
    main()
