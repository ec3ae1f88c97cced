"""`python -m lemni` is the `lemni` command."""

from __future__ import annotations

from lemni.cli import main

main()
