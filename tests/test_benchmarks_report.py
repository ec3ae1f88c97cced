"""What the benchmarks write down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.report import Report, cell, readable


def test_ratios_stand_beside_the_values_of_each_case(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("speed", "Speed")
    report.add("short", "ours", texts_per_s=3000.0)
    report.add("short", "theirs", texts_per_s=1500.0, p95_ms=20.0)
    report.add("long", "ours", texts_per_s=12.5)
    report.print(["texts_per_s", "p95_ms"], base="theirs")
    printed = capsys.readouterr().out
    lines = {tuple(line.split()) for line in printed.splitlines()}
    assert ("ours", "3,000", "2.00", "-") in lines
    assert ("theirs", "1,500", "1.00", "20", "1.00") in lines
    assert ("ours", "12.5") in lines, "a case without the base has no ratios, and only its own columns"


def test_a_report_is_saved_with_its_machine_and_a_plot(tmp_path: Path) -> None:
    report = Report("speed", "Speed")
    report.add("short", "ours", texts_per_s=3000.0)
    report.add("long", "theirs", texts_per_s=150.0)
    report.note("a third engine could not be run")
    report.save(tmp_path)
    saved = json.loads((tmp_path / "speed.json").read_text("utf-8"))
    assert saved["rows"] == [
        {"case": "short", "engine": "ours", "texts_per_s": 3000.0},
        {"case": "long", "engine": "theirs", "texts_per_s": 150.0},
    ]
    assert saved["notes"] == ["a third engine could not be run"]
    assert saved["machine"]["cpu"]
    assert saved["machine"]["cores"] >= 1
    assert (tmp_path / "speed.svg").read_text("utf-8").count("<svg") == 1
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")


def test_names_and_numbers_are_readable() -> None:
    assert readable("tokens_per_cpu_s") == "tokens/cpu s"
    assert readable("p95_ms") == "p95 ms"
    assert cell(0.12346, 0.5).split() == ["0.1235", "0.25"]
    assert cell(12345.6, None).split() == ["12,346"]
