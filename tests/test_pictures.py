"""Files, folders and patterns to lists of pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipdeploy.errors import InputError
from clipdeploy.pictures import find_pictures, read_lines


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "deep/c.jpg", "deep/deeper/d.webp", "text/e.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def names(paths: tuple[Path, ...]) -> list[str]:
    return [path.name for path in paths]


def test_a_folder_gives_its_pictures_sorted(folder: Path) -> None:
    assert names(find_pictures([folder])) == ["a.PNG", "b.jpg"]


def test_recursive_goes_to_the_bottom(folder: Path) -> None:
    assert names(find_pictures([folder], recursive=True)) == ["a.PNG", "b.jpg", "c.jpg", "d.webp"]


def test_patterns(folder: Path) -> None:
    assert names(find_pictures([f"{folder}/*.jpg"])) == ["b.jpg"]
    assert names(find_pictures([f"{folder}/**/*.jpg"])) == ["b.jpg", "c.jpg"]
    assert names(find_pictures([f"{folder}/*"])) == ["a.PNG", "b.jpg"]


def test_order_is_kept_and_each_comes_once(folder: Path) -> None:
    found = find_pictures([folder / "b.jpg", folder, folder / "b.jpg"])
    assert names(found) == ["b.jpg", "a.PNG"]


def test_a_named_file_may_have_any_ending(folder: Path) -> None:
    assert names(find_pictures([folder / "notes.txt"])) == ["notes.txt"]


def test_a_file_named_like_a_pattern_is_that_file(folder: Path) -> None:
    (folder / "[b].jpg").write_bytes(b"x")
    assert names(find_pictures([folder / "[b].jpg"])) == ["[b].jpg"]


@pytest.mark.parametrize(
    ("place", "message", "fix"),
    [
        ("gone.jpg", "gone.jpg does not exist", "check the path"),
        ("*.tiff", "matches nothing", "check the pattern"),
        ("*.txt", "matches no picture among 1 names", ".jpg"),
        ("text", "holds no picture", "supported: .jpg"),
    ],
)
def test_what_is_not_there_is_said(folder: Path, place: str, message: str, fix: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        find_pictures([folder / place])
    assert fix in str(caught.value.fix)


def test_pictures_further_down_are_hinted_at(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match="holds no picture") as caught:
        find_pictures([tmp_path])
    assert "--recursive" in str(caught.value.fix)


def test_no_places() -> None:
    with pytest.raises(InputError, match="no pictures given"):
        find_pictures([])


def test_read_lines(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeffa dog\r\n\n  a cat \n".encode())
    assert read_lines(path, what="labels") == ("a dog", "a cat")


@pytest.mark.parametrize(
    ("content", "message"), [(None, "cannot be read"), (b"\n \n", "holds no labels"), (b"\xff\xfe", "not UTF-8 text")]
)
def test_read_lines_of_a_bad_file(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "labels.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_lines(path, what="labels")
