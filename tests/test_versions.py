"""Versions of libraries: told alike by their folders' names and by what the folders hold."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clipdeploy.versions import installed, installed_quickly


def test_both_ways_tell_the_same() -> None:
    libraries = ("numpy", "Pillow", "no-such-library", "pytest")
    assert installed_quickly(libraries) == installed(libraries)
    assert installed_quickly(libraries).keys() >= {"numpy", "pytest"}


def test_dashes_dots_and_the_first_place_of_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("a/Some_Library-1.2.3.dist-info", "b/some_library-9.dist-info", "b/other.thing-4.dist-info"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "none"), str(tmp_path / "a"), str(tmp_path / "b"), ""])
    assert installed_quickly(["other-thing", "some-library"]) == {"other-thing": "4", "some-library": "1.2.3"}


def test_where_no_folder_is_named_so_the_metadata_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "odd.egg-info"
    folder.mkdir()
    (folder / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 7\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert installed_quickly(["odd"]) == {"odd": "7"}
    assert installed_quickly(["even"]) == {}
