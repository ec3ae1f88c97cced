"""Where models may be written: not into a cache, whose files other programs and models share."""

from __future__ import annotations

from pathlib import Path

from lemni.config import HubSettings
from lemni.errors import ConfigError
from lemni.hub.cache import Cache


def check_output(output: Path, settings: HubSettings) -> None:
    """Raises ConfigError for a file or folder, there or not, inside of Lemni's cache or the one of Hugging Face."""
    from huggingface_hub import constants

    # A file that is a link is replaced as such; a folder that is one is where the files would go.
    place = output.resolve() if output.is_dir() else output.parent.resolve() / output.name
    for name, cache in (
        ("Lemni's cache", Cache(settings.cache_dir).folder),
        ("the Hugging Face cache", Path(constants.HF_HUB_CACHE)),
    ):
        if place.is_relative_to(cache.expanduser().resolve()):
            raise ConfigError(f"{output}: is inside {name}, {cache}; name a place outside of it")
