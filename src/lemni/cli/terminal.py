"""Texts of others on a terminal: on one line, cut to a width, and without characters that would steer the terminal."""

from __future__ import annotations

import unicodedata


def shortened(text: str, cells: int) -> str:
    """The text on one line of at most `cells` cells, at least 1; "…" ends it if something is missing."""
    used, kept, fits = 0, "", ""
    for character in " ".join(text.split()):
        used += _cells(character)
        if used > cells:
            return fits + "…"
        kept += _safe(character)
        if used < cells:
            fits = kept
    return kept


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def _safe(character: str) -> str:
    """Marks of direction and joiners are left out, control characters shown as one that is visible."""
    category = unicodedata.category(character)
    return "" if category == "Cf" else "\ufffd" if category == "Cc" else character
