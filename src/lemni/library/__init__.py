"""The library: a model in this process, without a server. `lemni.load(...)` is the way in.

Runs the same engine as the server, so threads may share one `Embedder`, and async code may await it.
"""

from __future__ import annotations

from lemni.library.embedder import Embedder, load

__all__ = ["Embedder", "load"]
