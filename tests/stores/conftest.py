"""Their clients leave sockets and files to the garbage."""

from tests.leftovers import swept

__all__ = ["swept"]
