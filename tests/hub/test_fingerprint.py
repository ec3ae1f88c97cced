"""What stands for the files of a folder."""

from __future__ import annotations

from pathlib import Path

from lemni import hub
from lemni.config import HubSettings
from lemni.hub.fingerprint import fingerprint


def test_a_fingerprint_stands_for_the_files(tmp_path: Path) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("{}")
    before = fingerprint(tmp_path)
    assert fingerprint(tmp_path) == before
    (tmp_path / "1_Pooling" / "config.json").write_text("{ }")
    assert fingerprint(tmp_path) != before


def test_a_folder_has_it_as_its_revision(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = hub.resolve(str(tmp_path), HubSettings()).revision
    assert before == fingerprint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert hub.resolve(str(tmp_path), HubSettings()).revision not in (None, before)
