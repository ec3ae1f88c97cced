"""`python -m benchmarks.peers install [NAME ...]`: make the environments of all peers, or of those named."""

from __future__ import annotations

import sys

from benchmarks.peers.environments import PEERS, install


def main() -> None:
    command, *names = sys.argv[1:] or ["install"]
    if command != "install":
        sys.exit(f"unknown command {command!r}; known: install")
    if unknown := sorted(set(names) - set(PEERS)):
        sys.exit(f"unknown peer {unknown[0]!r}; known: {', '.join(PEERS)}")
    # A peer that cannot be installed here is a line of the report, not a failure.
    for name in names or PEERS:
        print(f"{name:24} {install(name) or 'installed'}", flush=True)


if __name__ == "__main__":
    main()
