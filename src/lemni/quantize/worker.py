"""A model in one precision, in a process of its own, so that its memory is nobody else's: `python -m` this module.

A line of JSON in, a line of JSON out; the first names the settings, each that follows a job. Vectors go through files.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence as Seq
from pathlib import Path
from statistics import median
from typing import Any

from lemni.errors import ConfigError, InternalError, LemniError

QUERIES_IN_A_ROUND = 10


class Worker:
    """The process, seen from the one that compares.

    Raises:
        ConfigError: the model cannot be loaded so; the message is its error.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        # -c: `python -m` would import a package's module twice.
        command = [sys.executable, "-c", "from lemni.quantize.worker import main; main()"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            self.loaded = self.ask(settings)
        except BaseException:
            self.close()
            raise

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        """One job and its answer. Raises ConfigError with what the other side raised; InternalError if it died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise InternalError("a process that measures has died")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ConfigError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process. Idempotent."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._process.kill()
        self._process.wait()


def main() -> None:
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    jobs = (json.loads(line) for line in sys.stdin)

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    try:
        from lemni.library import load

        # That long texts are cut is the same in every precision.
        logging.getLogger("lemni.library").setLevel(logging.ERROR)
        start = time.perf_counter()
        model = load(**next(jobs))
        seconds = time.perf_counter() - start
        card = model.card
        answer({"load_s": seconds, "dtype": card.dtype, "similarity": card.similarity, "tasks": list(card.tasks)})
        with model:
            for job in jobs:
                answer(_JOBS[job["job"]](model, job))
    except LemniError as error:
        answer({"error": error.message})


def _embed(model: Any, job: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    vectors = model.embed(job["texts"], input_type=job.get("input_type"), truncate="right", priority="bulk")
    np.save(job["path"], vectors)
    return {}


def _time(model: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds of a short text by itself, and seconds of all texts together."""
    texts: Seq[str] = job["texts"]
    query = min(texts, key=lambda text: abs(len(text) - 40))
    alone = []
    for _ in range(QUERIES_IN_A_ROUND):
        start = time.perf_counter()
        model.embed(query)
        alone.append(1000 * (time.perf_counter() - start))
    start = time.perf_counter()
    model.embed(texts, truncate="right")
    return {"query_ms": median(alone), "seconds": time.perf_counter() - start}


def _memory(model: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Bytes: resident, the process's share of it, and on the GPU what torch has taken at most."""
    rollup = Path("/proc/self/smaps_rollup")
    sizes = {}
    for line in rollup.read_text().splitlines() if rollup.exists() else []:
        name, _, rest = line.partition(":")
        if name in ("Rss", "Pss"):
            sizes[name.lower()] = 1024 * int(rest.split()[0])
    torch = sys.modules.get("torch")
    if torch is not None and model.card.device.startswith("cuda"):
        sizes["gpu"] = int(torch.cuda.max_memory_reserved())
    return sizes


_JOBS = {"embed": _embed, "time": _time, "memory": _memory}
