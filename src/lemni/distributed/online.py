"""`lemni deploy --ray`: models served by a Ray cluster, through the same HTTP APIs as `lemni serve`.

    front (HTTP, dialects)  ->  model-minilm: replicas, as many as its queued tokens ask for
                            ->  model-reranker: ...

Each model is a deployment of its own. Deploying again with other settings replaces replicas one by one: new ones are
ready before old ones are drained. `lemni.ray_app` is the builder for `serve run lemni:ray_app` and a RayService.
"""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from typing import Any

from lemni.config import ModelSettings, Settings
from lemni.distributed.front import Front
from lemni.distributed.replica import Replica, board
from lemni.errors import ConfigError, Unavailable, missing_extra

APP = "lemni"
_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of the cluster a deployment may take.

    Attributes:
        least, most: replicas of each model.
        target_queued_tokens: tokens that wait per replica before there is another one.
        cpus, gpus: of each replica; None takes the engine's threads, else 1, and one GPU if the device is one.
        fronts: most replicas of the HTTP side; they scale with requests in flight.
        upscale_delay_s, downscale_delay_s: how long the need has to last.
    """

    least: int = 1
    most: int = 1
    target_queued_tokens: int = 16_384
    cpus: float | None = None
    gpus: float | None = None
    fronts: int = 2
    upscale_delay_s: float = 5.0
    downscale_delay_s: float = 300.0

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most or self.most < 1:
            raise ConfigError(f"replicas are {self.least} to {self.most}; give 0 <= least <= most, most at least 1")
        if self.target_queued_tokens < 1:
            raise ConfigError(f"target_queued_tokens is {self.target_queued_tokens}; it must be at least 1")


def application(settings: Settings, scale: Scale) -> Any:
    """The application for `serve.run`: the front bound to a deployment for each model.

    Raises:
        MissingExtra: Ray is not installed.
        ConfigError: two models would have one deployment.
    """
    try:
        from ray import serve
    except ImportError:
        raise missing_extra("ray", "ray", "lemni deploy") from None
    models: dict[str, Any] = {}
    for model in settings.models:
        name = deployment_name(model)
        if name in models:
            raise ConfigError(f"two models would be the deployment {name!r}; give one of them another served_name")
        own = settings.model_copy(update={"models": (model,)})
        gpus = scale.gpus if scale.gpus is not None else float(model.device.startswith("cuda"))
        made = serve.deployment(
            Replica,
            name=name,
            ray_actor_options={"num_cpus": scale.cpus or float(settings.engine.threads or 1), "num_gpus": gpus},
            max_ongoing_requests=1000,  # the engine has a queue of its own, and refuses by tokens
            graceful_shutdown_timeout_s=settings.server.drain_timeout_s,
            health_check_period_s=5,
            autoscaling_config={
                "min_replicas": scale.least,
                "initial_replicas": max(1, scale.least),
                "max_replicas": scale.most,
                "upscale_delay_s": scale.upscale_delay_s,
                "downscale_delay_s": scale.downscale_delay_s,
                "metrics_interval_s": 1.0,
                "look_back_period_s": 5.0,
                "policy": {
                    "policy_function": "lemni.distributed.scaling:ByQueuedTokens",
                    "policy_kwargs": {"target": scale.target_queued_tokens},
                },
            },
        )
        models[name] = made.bind(own, name)
    front = serve.deployment(
        Front,
        name="front",
        ray_actor_options={"num_cpus": 0.5},
        max_ongoing_requests=1000,
        graceful_shutdown_timeout_s=settings.server.drain_timeout_s,
        health_check_period_s=2,
        autoscaling_config={"min_replicas": 1, "max_replicas": scale.fronts, "target_ongoing_requests": 100},
    )
    return front.bind(settings, scale.least == 0, **models)


def deployment_name(model: ModelSettings) -> str:
    """Of its served name, in the letters that Ray takes: "model-all-MiniLM-L6-v2"."""
    name = (model.served_name or model.model).rstrip("/").rpartition("/")[2]
    return "model_" + re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")


def deploy(settings: Settings, scale: Scale, *, ray_address: str | None = None) -> str:
    """Put the models onto a cluster, or replace those that are there; return the URL when each has a replica.

    Args:
        ray_address: as `ray.init` takes it; None takes RAY_ADDRESS, or begins a cluster of this machine, which ends
            with this process.

    Raises:
        Unavailable: no cluster at the address, or a model cannot be loaded there.
    """
    made = application(settings, scale)
    connect(ray_address)
    from ray import serve

    host, port = settings.server.host, settings.server.port
    serve.start(http_options={"host": host, "port": port})
    try:
        serve.run(made, name=APP, route_prefix="/")
    except RuntimeError as error:
        raise Unavailable(f"the cluster could not start the application: {error}") from None
    return f"http://{'localhost' if host == '0.0.0.0' else host}:{port}"


def remove(ray_address: str | None = None) -> None:
    """Take the models off the cluster."""
    connect(ray_address)
    import ray
    from ray import serve

    serve.delete(APP)
    ray.get(board(ray).forget.remote(APP))


def connect(address: str | None) -> None:
    """Have Ray, unless the script has it already. Raises Unavailable and MissingExtra."""
    try:
        import ray
    except ImportError:
        raise missing_extra("ray", "ray", "lemni deploy") from None
    if ray.is_initialized():
        return
    where = address or os.environ.get("RAY_ADDRESS")
    if where and not _listens(where):
        raise Unavailable(f"no Ray cluster at {where}: nothing listens there")
    # Without a cluster to connect to one is begun, on this machine and without its web page.
    alone: dict[str, Any] = {} if where else {"include_dashboard": False}
    try:
        ray.init(address=address if where else "local", log_to_driver=False, logging_level="error", **alone)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise Unavailable(f"no Ray cluster at {where or 'hand'}: {error}") from None


def _listens(address: str) -> bool:
    """Whether somebody does; Ray itself would try for minutes. True for "auto" and the like, which name no port."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return True
    try:
        socket.create_connection((host, int(port)), _PATIENCE_S).close()
        return True
    except OSError:
        return False
