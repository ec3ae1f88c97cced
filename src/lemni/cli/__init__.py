"""The command line: flags, variables and files in; settings for everything below it. Imports nothing heavy."""

from __future__ import annotations

from lemni.cli.app import main

__all__ = ["main"]
