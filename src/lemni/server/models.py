"""The models that a server is told to serve, loaded and put behind one engine."""

from __future__ import annotations

from dataclasses import dataclass

from lemni.config import Settings
from lemni.engine import Engine
from lemni.errors import ConfigError
from lemni.loading import load_model
from lemni.tasks.model import LoadedModel


@dataclass(frozen=True)
class Loaded:
    """A started engine and its models."""

    engine: Engine
    models: tuple[LoadedModel, ...]

    def close(self) -> None:
        """End what is in flight and free the memory."""
        self.engine.close()
        for model in self.models:
            model.close()


def load_models(settings: Settings) -> Loaded:
    """Load every model, one after another, and start the engine. Raises SetupError; nothing is left loaded then."""
    models: dict[str, LoadedModel] = {}
    try:
        for wanted in settings.models:
            model = load_model(wanted, settings.hub, settings.engine, settings.media)
            name = model.card.name
            if name in models:
                model.close()
                raise ConfigError(f"two models are served as {name!r}; give one of them another served_name")
            models[name] = model
        engine = Engine(models, settings.engine)
        engine.start()
    except BaseException:
        for model in models.values():
            model.close()
        raise
    return Loaded(engine, tuple(models.values()))
