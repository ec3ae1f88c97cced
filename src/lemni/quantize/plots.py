"""What was compared, as bars: one picture with a panel for each measure."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from pathlib import Path

from lemni.errors import missing_extra
from lemni.quantize.compare import Row

_PANELS: tuple[tuple[str, Callable[[Row], float | None]], ...] = (
    ("weights, MB", lambda row: row.weights_bytes / 1e6),
    ("resident memory, MB", lambda row: row.resident_bytes / 1e6),
    ("one query, ms", lambda row: row.query_ms),
    ("texts/s", lambda row: row.texts_per_s),
    ("mean cosine to fp32", lambda row: row.cosine_mean),
    ("Spearman", lambda row: row.spearman),
    ("nDCG@10", lambda row: row.ndcg),
)


def check_plots() -> None:
    """Raises MissingExtra without matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise missing_extra("matplotlib", "plots", "--plot") from None


def plot(rows: Seq[Row], title: str, folder: Path) -> list[Path]:
    """Write compare.svg and compare.png; panels of what was not measured are left out."""
    check_plots()
    from matplotlib.figure import Figure  # no pyplot, which would look for a display

    panels = [(name, value) for name, value in _PANELS if all(value(row) is not None for row in rows)]
    figure = Figure(figsize=(2.4 * len(panels), 2.8), layout="constrained")
    figure.suptitle(title)
    for axes, (name, value) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        values = [value(row) or 0.0 for row in rows]
        bars = axes.bar([row.precision for row in rows], values, color="#4477aa")
        axes.bar_label(bars, fmt="%.4g", fontsize=7)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
    paths = [folder / f"compare.{ending}" for ending in ("svg", "png")]
    for path in paths:
        figure.savefig(path, dpi=150)
    return paths
