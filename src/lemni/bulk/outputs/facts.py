"""What a file says of itself, where its format has room for that."""

from __future__ import annotations

from lemni.bulk.outputs.base import Made


def facts_of(made: Made) -> dict[str, str]:
    """Texts by name: model, revision (if known), task, output_type, similarity, dimensions (if it has any)."""
    found = {
        "model": made.model,
        "revision": made.revision,
        "task": made.task,
        "output_type": made.output_type,
        "similarity": made.similarity,
        "dimensions": None if made.dimensions is None else str(made.dimensions),
    }
    return {name: value for name, value in found.items() if value is not None}
