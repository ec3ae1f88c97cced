"""What a benchmark found: a table of ratios for the reader, JSON for later, bars for the eye."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("lemni", "openvino", "onnxruntime", "torch", "numpy", "tokenizers")


class Report:
    """Rows of a case and an engine with values; all engines of a case were measured in one run, in turns."""

    def __init__(self, name: str, title: str) -> None:
        self.name = name
        self.title = title
        self.rows: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.base: str | None = None
        self._machine = machine()

    def add(self, case: str, engine: str, **values: float) -> None:
        """Values are named by what they count, with "_per_" for "/": `texts_per_s`, `p95_ms`."""
        self.rows.append({"case": case, "engine": engine, **values})

    def note(self, text: str) -> None:
        """Something that the numbers do not say, such as which peer could not be run and why."""
        self.notes.append(text)

    def cases(self) -> list[str]:
        return list(dict.fromkeys(row["case"] for row in self.rows))

    def of(self, case: str) -> dict[str, dict[str, float]]:
        """Values of each engine."""
        rows = [row for row in self.rows if row["case"] == case]
        return {row["engine"]: {key: row[key] for key in row if key not in ("case", "engine")} for row in rows}

    def print(self, columns: Sequence[str], base: str | None = None) -> None:
        """A table for each case; beside each value its ratio to that of the engine `base`, where the case has it."""
        self.base = base or self.base
        print(f"\n## {self.title}")
        for case in self.cases():
            found = self.of(case)
            known = [key for key in columns if any(key in values for values in found.values())]
            times = "×" if base in found else ""
            print(f"\n{case}\n{'':32}" + "".join(f"{readable(key):>14}{times:>8}" for key in known))
            for engine, values in found.items():
                cells = (cell(values.get(key), found.get(base or "", {}).get(key), key) for key in known)
                print(f"{engine:32}" + "".join(cells))
        for text in self.notes:
            print(f"\n* {text}" if text is self.notes[0] else f"* {text}")
        print(flush=True)

    def save(self, folder: Path | str, column: str | None = None) -> None:
        """Write NAME.json, and bars of one column (the first one of the rows) as NAME.svg and NAME.png."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        whole = {
            "name": self.name,
            "title": self.title,
            "base": self.base,
            "machine": self._machine | {"load_average_at_the_end": os.getloadavg()},
            "rows": self.rows,
            "notes": self.notes,
        }
        (folder / f"{self.name}.json").write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", "utf-8")
        if self.rows:
            self._plot(folder, column or next(key for key in self.rows[0] if key not in ("case", "engine")))

    def _plot(self, folder: Path, column: str) -> None:
        """Horizontal bars; each case has its own scale, each engine its own colour."""
        from matplotlib import colormaps
        from matplotlib.figure import Figure

        panels = {case: self.of(case) for case in self.cases()}
        panels = {
            case: {engine: values[column] for engine, values in found.items() if column in values}
            for case, found in panels.items()
        }
        panels = {case: found for case, found in panels.items() if found}
        engines = list(dict.fromkeys(row["engine"] for row in self.rows))
        colours = {engine: colormaps["tab20"](number % 20) for number, engine in enumerate(engines)}
        heights = [len(found) + 1.5 for found in panels.values()]
        figure = Figure(figsize=(9, 0.8 + 0.26 * sum(heights)), layout="constrained")
        figure.suptitle(f"{self.title}: {readable(column)}")
        axes = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
        for axis, (case, found) in zip(axes, panels.items(), strict=True):
            bars = axis.barh(list(found), list(found.values()), color=[colours[engine] for engine in found])
            axis.bar_label(bars, fmt="%.4g", padding=3, fontsize=8)
            axis.set_title(case, fontsize=9, loc="left")
            axis.tick_params(labelsize=8)
            axis.invert_yaxis()
            axis.margins(x=0.1)
            axis.spines[["top", "right"]].set_visible(False)
        for kind in ("svg", "png"):
            figure.savefig(folder / f"{self.name}.{kind}", dpi=120)


def readable(key: str) -> str:
    """ "texts_per_s" -> "texts/s", "p95_ms" -> "p95 ms" """
    return key.replace("_per_", "/").replace("_", " ")


def cell(value: float | None, base: float | None, key: str = "") -> str:
    """Four digits that count, and the ratio to the base; 22 characters. A cosine has five digits and no ratio."""
    if value is None:
        return f"{'-':>14}{'':8}"
    if key.endswith("cosine"):
        return f"{value:14.5f}{'':8}"
    number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{number:>14}" + (f"{value / base:8.2f}" if base else f"{'':8}")


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "instructions": instructions(),
        "cores": cores,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := version(name))},
        "load_average_at_the_start": os.getloadavg(),
    }


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def instructions() -> list[str]:
    """Those that decide how fast matrices are multiplied."""
    flags = set(_cpuinfo().split())
    return [name for name in ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if name in flags]


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""
