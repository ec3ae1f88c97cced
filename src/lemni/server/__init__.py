"""HTTP: an engine behind a socket. `serve` is the whole server; `lemni.server.app.create_app` is the bare application.

Importing this loads no web framework: `serve` binds its port and starts loading the models before it needs one.
"""

from __future__ import annotations

from lemni.server.run import serve

__all__ = ["serve"]
