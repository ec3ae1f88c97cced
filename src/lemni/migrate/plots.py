"""Pictures for the report, as SVG to stand inside a page."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping
from collections.abc import Sequence as Seq

_TITLES = {
    "cosines": "1 - cosine, stored vector and embedded again",
    "index recall": "share of the exact neighbours that the index finds",
    "overlap": "share of the neighbours that stayed",
}


def pictures(samples: Mapping[str, Seq[float]]) -> str:
    """An `<svg>` with a panel for each sample; "" without matplotlib or without samples."""
    panels = [(name, samples[name]) for name in _TITLES if samples.get(name)]
    if not panels or importlib.util.find_spec("matplotlib") is None:
        return ""
    import matplotlib
    from matplotlib.figure import Figure  # no pyplot, which would look for a display

    # Equal numbers give equal pictures, and words stay words.
    with matplotlib.rc_context({"svg.hashsalt": "lemni", "svg.fonttype": "none"}):
        figure = Figure(figsize=(3.6 * len(panels), 2.8), layout="constrained")
        for axes, (name, values) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw(axes, name, values)
        content = io.StringIO()
        figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()[content.getvalue().index("<svg") :]


def _draw(axes, name: str, values: Seq[float]) -> None:  # type: ignore[no-untyped-def]
    if name == "cosines":
        axes.hist([max(0.0, 1 - value) for value in values], bins=20, color="#4477aa")
    else:
        axes.hist(values, bins=[at / 10 for at in range(12)], align="left", rwidth=0.9, color="#4477aa")
    axes.set_title(_TITLES[name], fontsize=8)
    axes.set_ylabel("entries" if name == "cosines" else "queries", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
