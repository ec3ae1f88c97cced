"""`lemni deploy --ray`: the models of `lemni serve` on a Ray cluster."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lemni.cli.completion import complete_model
from lemni.cli.options import SectionCommand, with_settings
from lemni.cli.settings import load_settings
from lemni.errors import ConfigError

if TYPE_CHECKING:
    from lemni.config import Settings
    from lemni.distributed import Scale

EPILOG = """\b
Examples:
  lemni deploy --ray                                        the default model, a cluster of this machine
  lemni deploy --ray BAAI/bge-m3 --ray-address auto --replicas 1:8
  lemni deploy --ray ./my-model --device cuda --replicas 2:16 --target-queued-tokens 65536
  lemni deploy --ray --ray-address auto --remove            take it off again
"""


@click.command(cls=SectionCommand, epilog=EPILOG)
@click.argument("models", nargs=-1, metavar="[MODEL]...", shell_complete=complete_model)
@click.option("--ray", is_flag=True, help="Onto a Ray cluster, by Ray Serve; what there is so far.")
@click.option("--ray-address", metavar="ADDRESS", help="Of the cluster; default: RAY_ADDRESS, else one of its own.")
@click.option("--replicas", default="1", show_default=True, metavar="N|LEAST:MOST", help="Of each model.")
@click.option(
    "--target-queued-tokens",
    type=click.IntRange(1),
    default=16_384,
    show_default=True,
    help="Tokens that wait per replica before there is another one.",
)
@click.option("--cpus", type=click.FloatRange(0, min_open=True), help="Of each replica; default: --threads, else 1.")
@click.option("--gpus", type=click.FloatRange(0), help="Of each replica; default: 1 with --device cuda.")
@click.option("--fronts", type=click.IntRange(1), default=2, show_default=True, help="Most replicas of the HTTP side.")
@click.option("--remove", "removing", is_flag=True, help="Take the models off the cluster.")
@with_settings("Model", "Engine", "Server", "Hub", "Media", leave_out=("model", "grpc_port", "replicas"))
def deploy(
    settings: Settings,
    ray: bool,
    ray_address: str | None,
    replicas: str,
    target_queued_tokens: int,
    cpus: float | None,
    gpus: float | None,
    fronts: int,
    removing: bool,
) -> None:
    """Serve models on a Ray cluster, with the APIs of `lemni serve`.

    Each model gets as many replicas as its queue asks for. Deploying again replaces them without an interruption.
    """
    from lemni import distributed

    if not ray:
        raise click.UsageError("say where: --ray is what there is (deploy/ has files for Docker and Kubernetes)")
    if removing:
        distributed.remove(ray_address)
        return
    scale = scale_of(replicas=replicas, target_queued_tokens=target_queued_tokens, cpus=cpus, gpus=gpus, fronts=fronts)
    url = distributed.deploy(settings, scale, ray_address=ray_address)
    names = ", ".join(model.served_name or model.model for model in settings.models)
    click.echo(f"Lemni is ready at {url}, docs at /docs: {names}, on Ray")
    if ray_address is None and "RAY_ADDRESS" not in os.environ:
        # A cluster that was begun here ends with this process.
        stopped = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stopped.set())
        stopped.wait()
        distributed.remove()


def scale_of(*, replicas: str = "1", **rest: Any) -> Scale:
    """Raises ConfigError where `replicas` is neither a number nor two with a colon."""
    from lemni.distributed import Scale

    least, _, most = str(replicas).partition(":")
    try:
        return Scale(
            int(least), int(most or least), **{name: value for name, value in rest.items() if value is not None}
        )
    except ValueError:
        raise ConfigError(f"--replicas is {replicas!r}; it must be a number, or two as in 1:8") from None


def ray_app(args: dict[str, Any] | None = None) -> Any:
    """The application for Ray Serve, from LEMNI_ variables and `args`: any setting by its name, `models` as a list, and
    `replicas`, `target_queued_tokens`, `cpus`, `gpus`, `fronts` as `lemni deploy` takes them.

        serve run lemni:ray_app model=./my-model replicas=1:4
    """
    from lemni.distributed import application

    given = dict(args or {})
    kinds: dict[str, Any] = {
        "replicas": str, "target_queued_tokens": int, "cpus": float, "gpus": float, "fronts": int,
    }  # fmt: skip
    scaling = {name: kind(given.pop(name)) for name, kind in kinds.items() if name in given}
    settings = load_settings(given, os.environ, Path(os.devnull), None)
    return application(settings, scale_of(**scaling))
