"""Programs that `test_joining.py` runs in a process of their own.

python -m tests.bulk.outputs.joining memory PLACE FORMAT FOLDER     prints by how many bytes memory grew
python -m tests.bulk.outputs.joining killed PLACE FORMAT FOLDER     prints how often it was killed
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lemni.bulk.outputs import Made, open_output
from lemni.bulk.rows import Rows

WIDTH = 256
ROWS = 10_000  # 10 MB of float32
MADE = Made("embed", WIDTH, "float32", "float32", "cosine", "some/model")


def rows(first: int, count: int) -> tuple[Rows, Any]:
    texts: list[Any] = [f"text {first + at}" for at in range(count)]
    ids: list[Any] = [f"id-{first + at}" for at in range(count)]
    carried = [{"year": at} if first else {"year": at / 2} for at in range(count)]  # whole numbers, and others
    vectors = np.random.default_rng(first).normal(size=(count, WIDTH)).astype(np.float32)
    return Rows(first, ids, texts, texts, carried), vectors


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def memory(place: str, format: str | None, folder: Path) -> None:
    """One part many times over, after it was joined alone."""
    output = open_output(place, format=format)
    output.prepare(MADE)
    part = folder / "part"
    output.write(part, *rows(0, ROWS), MADE)
    output.assemble([part, part], MADE)
    before = peak()
    size = part.stat().st_size
    files = output.assemble([part] * (200_000_000 // size + 2), MADE)
    size = sum(one.stat().st_size for path in files for one in ([path] if path.is_file() else path.rglob("*")))
    print(peak() - before, size)
    for path in files:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def killed(place: str, format: str | None, folder: Path) -> None:
    """Die at the first place where a file is opened, moved, linked or removed, at the second ...; each time do it again
    after that, and compare."""
    output = open_output(place, format=format)
    output.prepare(MADE)
    parts = [folder / f"{number}.part" for number in range(2)]
    target = Path(place).parent

    def write() -> None:
        for number, part in enumerate(parts):
            output.write(part, *rows(number * 20, 20), MADE)

    def assemble() -> None:
        output.prepare(MADE)
        output.assemble(parts, MADE)

    # Nothing is done here, so that no thread is running when a child is forked.
    assert in_child(write)
    assert in_child(assemble)
    expected = content(target)
    old = dict.fromkeys(expected, b"old")
    times = 0
    while True:
        for path in target.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if times % 2 and not place.endswith("/"):
            for name, data in old.items():
                (target / name).write_bytes(data)
        if in_child(assemble, times):
            break
        times += 1
        for name, data in content(target).items():
            if name in expected:
                assert data in (expected[name], b"old"), f"{name} is half-written after {times}"
        assert in_child(assemble)
        assert content(target) == expected, f"another output after {times}"
    print(times)


def content(folder: Path) -> dict[str, Any]:
    """Of all files by name."""
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            found.update({f"{path.name}/{name}": data for name, data in content(path).items()})
        else:
            found[path.name] = path.read_bytes()
    return found


def in_child(action: Callable[[], None], event: int | None = None) -> bool:
    """Whether a child came to the action's end; it is killed at an event, if one is given."""
    child = os.fork()
    if not child:
        code = 3
        try:
            if event is not None:
                die_at(event)
            action()
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -9), f"the child failed: {status}"
    return status == 0


def die_at(event: int) -> None:
    left = [event]

    def hook(name: str, _: tuple[Any, ...]) -> None:
        if name in ("open", "os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "shutil.copyfile"):
            if not left[0]:
                os.kill(os.getpid(), 9)
            left[0] -= 1

    sys.addaudithook(hook)


if __name__ == "__main__":
    which, place, format, folder = sys.argv[1:]
    {"memory": memory, "killed": killed}[which](place, format or None, Path(folder))
