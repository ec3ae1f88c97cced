"""Folders that change their names, killed at every step."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lemni.errors import StoreError
from lemni.stores import folders


class Killed(BaseException):
    pass


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("calls", range(7))
def test_a_switch_killed_anywhere_is_finished_by_the_same_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool, calls: int
) -> None:
    for name in ("docs", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "who").write_text(name)
    if not exchange:
        monkeypatch.setattr(folders, "_exchanged", lambda one, other: False)
    left = calls

    def counted(what: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return what(*arguments)

        return call

    def who() -> dict[str, str]:
        return {one.parent.name: one.read_text() for one in tmp_path.glob("*/who")}

    with monkeypatch.context() as patched:
        for module, name in ((os, "rename"), (os, "replace"), (folders, "_exchanged"), (Path, "unlink")):
            patched.setattr(module, name, counted(getattr(module, name)))
        try:
            assert folders.switch(tmp_path.joinpath, "docs", "new") == "docs_before_new"
            killed = False
        except Killed:
            killed = True
    assert killed == (calls < (4 if exchange else 5))
    if exchange:
        assert "docs" in who()
    assert folders.switch(tmp_path.joinpath, "docs", "new") == "docs_before_new"
    assert who() == {"docs": "new", "docs_before_new": "docs"}
    assert folders.switch(tmp_path.joinpath, "docs", "docs_before_new") == "new"
    assert who() == {"docs": "docs", "new": "new"}
    assert sorted(one.name for one in tmp_path.iterdir()) == ["docs", "new"]


def test_an_unfinished_switch_is_finished_by_one_of_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("docs", "one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "who").write_text(name)
    with monkeypatch.context() as patched:
        real = os.rename

        def rename(one: Path, other: Path) -> None:
            if other.name == "docs_before_one":
                raise Killed
            real(one, other)

        patched.setattr(os, "rename", rename)
        with pytest.raises(Killed):
            folders.switch(tmp_path.joinpath, "docs", "one")
    assert folders.switch(tmp_path.joinpath, "docs", "two") == "docs_before_two"
    found = {one.parent.name: one.read_text() for one in tmp_path.glob("*/who")}
    assert found == {"docs": "two", "docs_before_two": "one", "docs_before_one": "docs"}


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    for name in ("docs", "new", "docs_before_new"):
        (tmp_path / name).mkdir()
    with pytest.raises(StoreError, match=r"docs_before_new: is in the way"):
        folders.switch(tmp_path.joinpath, "docs", "new")
    assert folders.switch(tmp_path.joinpath, "docs", "docs") is None  # it has the name
    with pytest.raises(StoreError, match="no such folder"):
        folders.switch(tmp_path.joinpath, "docs", "other")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["docs", "docs_before_new", "new"]
