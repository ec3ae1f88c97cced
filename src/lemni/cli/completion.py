"""`lemni completion SHELL`: prints the script that makes a shell complete commands, options and model names."""

from __future__ import annotations

import contextlib

import click
from click.shell_completion import CompletionItem, get_completion_class

EPILOG = """\b
Put one of these lines into the start-up file of your shell:
  bash (~/.bashrc):                   eval "$(lemni completion bash)"
  zsh (~/.zshrc):                     eval "$(lemni completion zsh)"
  fish (~/.config/fish/config.fish):  lemni completion fish | source
"""


@click.command(epilog=EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    script = get_completion_class(shell)
    if script is None:
        raise click.UsageError(f"this version of click cannot complete in {shell}")
    click.echo(script(ctx.find_root().command, {}, "lemni", "_LEMNI_COMPLETE").source())


def complete_model(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Models in the caches, and folders."""
    import os

    from lemni import hub
    from lemni.cli.settings import DOTENV, load_settings
    from lemni.errors import LemniError

    # Whatever is wrong with the settings is said when the command runs.
    with contextlib.suppress(LemniError, OSError):
        settings = load_settings({}, os.environ, DOTENV)
        names = sorted({model.id for model in hub.list_models(settings.hub)})
        # The folders come first because bash forgets what stands before them.
        return [CompletionItem(incomplete, type="dir"), *(CompletionItem(n) for n in names if n.startswith(incomplete))]
    return [CompletionItem(incomplete, type="dir")]
