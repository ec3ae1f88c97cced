"""Text Embeddings Inference's gRPC API, `tei.v1`, beside HTTP: the same engine, names, key and errors. Extra "grpc".

`server.py` starts and stops it, `services.py` answers, `calls.py` is what every call goes through. `tei_pb2*.py` are
generated from `tei.proto`, and good for clients too. Importing this package imports none of them.
"""

from __future__ import annotations

from importlib.util import find_spec

from lemni.errors import missing_extra

_PACKAGES = {"grpc": "grpcio", "google.protobuf": "protobuf", "grpc_reflection": "grpcio-reflection"}


def check_installed() -> None:
    """Raises MissingExtra that names the package."""
    for module, package in _PACKAGES.items():
        try:
            found = find_spec(module)
        except ModuleNotFoundError:  # the package that it would be in
            found = None
        if found is None:
            raise missing_extra(package, "grpc", "grpc_port")
