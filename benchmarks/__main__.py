"""`python -m benchmarks [NAME ...]`: run all benchmarks, or those named, with the options that their `main` takes."""

from __future__ import annotations

import argparse
import inspect
import signal
import sys
from importlib import import_module
from pathlib import Path

NAMES = (
    "batch_tokens",
    "rows",
    "fairness",
    "startup",
    "output_types",
    "precision",
    "profile",
    "client",
    "overhead",
    "online",
    "offline",
    "bulk",
    "scale",
)

# Those that need what most machines have not: only by name.
BY_NAME = ("gpu",)


def main() -> None:
    # Servers that a benchmark has started end with it, also where it is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser("python -m benchmarks", description=f"Benchmarks: {', '.join(NAMES + BY_NAME)}.")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--rounds", type=int, help="alternating rounds that count")
    parser.add_argument("--seconds", type=float, help="length of one measurement")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where JSON and plots go")
    parser.add_argument("--measured", type=Path, metavar="FILE", help="what `scale` is to take instead of measuring")
    parser.add_argument("--price", type=float, help="of a core for an hour in USD, for `scale`")
    parser.add_argument("--engines", type=lambda names: tuple(names.split(",")), help="only these, by commas")
    given = {key: value for key, value in vars(parser.parse_args()).items() if value is not None}
    names = given.pop("names") or NAMES
    if unknown := sorted(set(names) - {*NAMES, *BY_NAME}):
        parser.error(f"unknown benchmark {unknown[0]!r}; known: {', '.join(NAMES + BY_NAME)}")
    for name in names:
        module = import_module(f"benchmarks.{name}")
        print(f"\n# {name}: {(module.__doc__ or '').strip().splitlines()[0]}\n", flush=True)
        taken = inspect.signature(module.main).parameters
        module.main(**{key: value for key, value in given.items() if key in taken})


if __name__ == "__main__":
    main()
