"""What a new collection of Qdrant is made with, from the settings of one that is there."""

from __future__ import annotations

from typing import Any

from lemni.stores.base import Metric, Schema

DISTANCES: dict[Metric, str] = {"cosine": "Cosine", "dot": "Dot", "l2": "Euclid"}
METRICS: dict[str, Metric] = {distance: metric for metric, distance in DISTANCES.items()}


def settings_of(info: Any) -> dict[str, Any]:
    """What another collection takes over, as `create_collection` takes it."""
    from qdrant_client import models

    config, params = info.config, info.config.params
    diffs = {
        "hnsw_config": (config.hnsw_config, models.HnswConfigDiff),
        "optimizers_config": (config.optimizer_config, models.OptimizersConfigDiff),
        "wal_config": (config.wal_config, models.WalConfigDiff),
        "strict_mode_config": (getattr(config, "strict_mode_config", None), models.StrictModeConfig),
    }
    settings = {name: to(**one.model_dump(exclude_none=True)) for name, (one, to) in diffs.items() if one is not None}
    for name in ("shard_number", "replication_factor", "write_consistency_factor", "on_disk_payload"):
        settings[name] = getattr(params, name, None)
    settings["quantization_config"] = config.quantization_config
    settings["metadata"] = getattr(config, "metadata", None)
    return {name: one for name, one in settings.items() if one is not None}


def dense_params(schema: Schema, like: Any) -> Any:
    """Parameters of a dense or multi-vector with what `like` has of its own."""
    from qdrant_client import models

    several = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    kept = (
        like.model_dump(exclude_none=True, exclude={"size", "distance", "multivector_config", "datatype"})
        if like
        else {}
    )
    # Vectors of bytes were made for another model.
    if like and like.datatype and like.datatype != models.Datatype.UINT8:
        kept["datatype"] = like.datatype
    return models.VectorParams(
        size=schema.dimensions,
        distance=models.Distance(DISTANCES[schema.metric]),
        multivector_config=several if schema.kind == "multi_vector" else None,
        **kept,
    )
