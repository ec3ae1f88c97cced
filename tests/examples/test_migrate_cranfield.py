"""The whole way of the example on what comes with Lemni: real models, a real Chroma."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from lemni.hub import ModelFiles

ROOT = Path(__file__).resolve().parents[2]
FAST = "pypi:tokenlearn-static-model==0.1.1#static_model/model"


def test_there_and_back(minilm: ModelFiles, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "migrate_cranfield.py"), "--documents", "120"]
    sides = ["--model", str(minilm.path), "--to", FAST, "--data", str(tmp_path / "nothing")]
    done = subprocess.run(
        [*command, *sides, "--folder", str(tmp_path / "out")], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert "1. embedded 120 documents" in said
    first = [float(value) for value in re.findall(r"own text first ([\d.]+)", said)]
    # Every text finds itself with its own model: before, after, and when it is undone.
    assert first[0] == first[1] == first[-1] == 1
    assert "checks passed" in said
    assert (tmp_path / "out" / "migration.svg").read_text().startswith("<?xml")
    report = (tmp_path / "out" / "migration" / "report.md").read_text()
    assert "120" in report
