"""The gRPC server: on the event loop of the HTTP server, started and drained with it by `lemni.server.process`."""

from __future__ import annotations

import grpc
from grpc_reflection.v1alpha import reflection

from lemni.errors import ConfigError
from lemni.server.errors import log
from lemni.server.grpc.services import add_all
from lemni.server.grpc.tei_pb2 import DESCRIPTOR
from lemni.server.service import Service

_MIB = 1 << 20


class GrpcServer:
    """Attributes:
    port: that it listens on, once it is started.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._server: grpc.aio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen on `grpc_port` of the settings' host. Calls wait for the models as over HTTP. Raises ConfigError."""
        settings = self._service.settings
        server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),  # else a second server would share the port in silence
                ("grpc.max_receive_message_length", int(settings.max_body_mib * _MIB)),
                ("grpc.max_send_message_length", -1),
            ]
        )
        add_all(server, self._service)
        names = [service.full_name for service in DESCRIPTOR.services_by_name.values()]
        # Clients without the proto file, such as Haystack's, ask what there is. That is public, like /docs.
        reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        try:
            self.port = server.add_insecure_port(f"{host}:{settings.grpc_port}")
        except RuntimeError as error:
            raise ConfigError(f"cannot listen on {host} port {settings.grpc_port} (grpc_port): {error}") from error
        await server.start()
        self._server = server
        log.info("gRPC (tei.v1) on %s port %d", settings.host, self.port)

    async def stop(self, grace_s: float) -> None:
        """Take no more calls; those that run get `grace_s` seconds."""
        if self._server is not None:
            await self._server.stop(grace_s)
