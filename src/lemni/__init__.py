"""Lemni turns text into vectors: one server, one library."""

from __future__ import annotations

__version__ = "0.1.0"
