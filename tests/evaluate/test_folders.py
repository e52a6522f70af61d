"""A folder a class: names from folders or files, and everything that keeps them from being classes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from clipdeploy.demo.dataset import write_images
from clipdeploy.errors import InputError
from clipdeploy.evaluate.data import limited, read_dataset, subset
from tests.evaluate.layouts import pictures, text


def test_the_demo_world_as_it_is_written(tmp_path: Path) -> None:
    written = write_images(tmp_path / "world", count=30, size=(32, 24))
    found = read_dataset(tmp_path / "world")
    assert (found.name, found.task, found.layout) == ("world", "zeroshot_classification", "folders")
    assert found.classes == tuple(sorted(set(written.labels)))
    assert {item.open(): found.classes[item.truth] for item in found.items} == dict(
        zip(written.paths, written.labels, strict=True)
    )
    assert found.items[0].name == "black_ring/0000.jpg"
    assert [item.name for item in found.items] == sorted(item.name for item in found.items)
    assert found.notes == ()


def test_pictures_lie_at_any_depth_and_others_are_left_out(tmp_path: Path) -> None:
    pictures(tmp_path, ["cat/2.jpg", "cat/deep/1.PNG", "dog/1.webp", "dog/._1.webp", "loose.jpg", "__MACOSX/x/1.jpg"])
    text(tmp_path / "dog/notes.txt", "x")
    found = read_dataset(tmp_path)
    assert [(item.name, item.truth) for item in found.items] == [
        ("cat/2.jpg", 0),
        ("cat/deep/1.PNG", 0),
        ("dog/1.webp", 1),
    ]
    assert found.notes == (f"1 pictures of no class, in {tmp_path.name} itself, were left out",)


def test_a_class_without_pictures_is_an_answer_and_is_told(tmp_path: Path) -> None:
    pictures(tmp_path, ["cat/1.jpg", "dog/1.jpg"])
    (tmp_path / "ant").mkdir()
    found = read_dataset(tmp_path)
    assert found.classes == ("ant", "cat", "dog")
    assert [item.truth for item in found.items] == [1, 2]
    assert "classes without a picture: 'ant'" in found.notes[0]


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (("red_circle", "blue__ring"), ("blue ring", "red circle")),
        (("n02085620-Chihuahua", "n02085782-Japanese_spaniel"), ("Chihuahua", "Japanese spaniel")),
        (("001.ak47", "002.american-flag"), ("ak47", "american-flag")),
        (("3d_printer", "café"), ("3d printer", "café")),
    ],
)
def test_words_come_from_folders(tmp_path: Path, folders: tuple[str, ...], classes: tuple[str, ...]) -> None:
    pictures(tmp_path, [f"{folder}/1.jpg" for folder in folders])
    assert read_dataset(tmp_path).classes == classes


@pytest.mark.parametrize("folders", [("n01440764", "n01443537"), ("0", "1"), ("cat", "n01443537")])
def test_folders_that_are_no_words_need_a_file_of_names(tmp_path: Path, folders: tuple[str, ...]) -> None:
    pictures(tmp_path, [f"{folder}/1.jpg" for folder in folders])
    with pytest.raises(InputError, match="no words that a text encoder knows") as caught:
        read_dataset(tmp_path)
    assert "--classnames FILE" in str(caught.value.fix)
    assert "JSON object" in str(caught.value.fix)


NAMES = {
    "lines": ("names.txt", "tench\ngoldfish\n"),
    "list": ("names.json", '["tench", "goldfish"]'),
    "object": ("names.json", json.dumps({"n01443537": "goldfish", "n01440764": "tench"})),
    "keras": ("names.json", json.dumps({"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]})),
    "mapping": ("map.txt", "n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\n"),
    "tabs": ("map.tsv", "n01443537\tgoldfish\nn01440764\ttench\n"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_from_a_file(tmp_path: Path, kind: str) -> None:
    pictures(tmp_path / "data", ["n01440764/1.jpg", "n01443537/1.jpg"])
    name, content = NAMES[kind]
    found = read_dataset(tmp_path / "data", classnames=text(tmp_path / name, content))
    assert found.classes == ("tench", "goldfish")
    assert f"names of the classes come from {name}" in found.notes


@pytest.mark.parametrize("place", ["data/val/classnames.txt", "data/classnames.txt"])
def test_names_from_a_file_that_lies_there(tmp_path: Path, place: str) -> None:
    pictures(tmp_path / "data/val", ["n01440764/1.jpg", "n01443537/1.jpg"])
    text(tmp_path / place, "tench\ngoldfish\n")
    found = read_dataset(tmp_path / "data/val")
    assert found.classes == ("tench", "goldfish")
    assert found.name == "data/val"


def test_folders_that_are_numbers_are_labels(tmp_path: Path) -> None:
    pictures(tmp_path / "data", ["10/1.jpg", "2/1.jpg"])
    names = text(tmp_path / "names.txt", "\n".join(f"thing {number}" for number in range(11)))
    found = read_dataset(tmp_path / "data", classnames=names)
    assert [(item.name, found.classes[item.truth]) for item in found.items] == [
        ("2/1.jpg", "thing 2"),
        ("10/1.jpg", "thing 10"),
    ]
    two = read_dataset(tmp_path / "data", classnames=text(tmp_path / "two.txt", "first\nsecond"))
    assert [(item.name, two.classes[item.truth]) for item in two.items] == [
        ("2/1.jpg", "first"),
        ("10/1.jpg", "second"),
    ]


def test_names_of_a_file_that_no_folder_has_are_no_answers(tmp_path: Path) -> None:
    pictures(tmp_path / "data", ["n01440764/1.jpg", "n01443537/1.jpg"])
    names = text(tmp_path / "n.json", json.dumps({"n01440764": "tench", "n01443537": "goldfish", "n01484850": "shark"}))
    found = read_dataset(tmp_path / "data", classnames=names)
    assert found.classes == ("tench", "goldfish")
    assert "1 classes of n.json have no folder and are no answers" in found.notes


def test_two_classes_of_one_name_are_told_where_a_file_says_so(tmp_path: Path) -> None:
    pictures(tmp_path / "data", ["n01440764/1.jpg", "n01443537/1.jpg"])
    found = read_dataset(tmp_path / "data", classnames=text(tmp_path / "names.txt", "sunglasses\nsunglasses"))
    assert "cannot be told apart" in found.notes[-1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("n.txt", "one\ntwo\nthree\n", "names 3 classes; there are 2 folders"),
        ("n.txt", "", "names no class"),
        ("n.txt", "one\n\ntwo\n", "name 2 in .* is '': no words"),
        ("n.json", "{", "is no JSON"),
        ("n.json", "3", "holds a int"),
        ("n.json", '{"n01440764": "tench"}', "has no name for 'n01443537'"),
        ("n.json", '["tench", 3]', "name 2 in .* is 3"),
    ],
)
def test_a_file_of_names_that_does_not_fit(tmp_path: Path, name: str, content: str, message: str) -> None:
    pictures(tmp_path / "data", ["n01440764/1.jpg", "n01443537/1.jpg"])
    with pytest.raises(InputError, match=message) as caught:
        read_dataset(tmp_path / "data", classnames=text(tmp_path / name, content))
    assert caught.value.fix


def test_a_file_of_names_that_is_not_utf8_or_not_there(tmp_path: Path) -> None:
    pictures(tmp_path / "data", ["n01440764/1.jpg", "n01443537/1.jpg"])
    (tmp_path / "n.txt").write_bytes(b"caf\xe9\ntea\n")
    with pytest.raises(InputError, match=r"is not UTF-8 text: .* at byte 3"):
        read_dataset(tmp_path / "data", classnames=tmp_path / "n.txt")
    with pytest.raises(InputError, match=r"gone.txt cannot be read"):
        read_dataset(tmp_path / "data", classnames=tmp_path / "gone.txt")


def test_folders_of_one_name_are_refused(tmp_path: Path) -> None:
    pictures(tmp_path, ["red_circle/1.jpg", "red circle/1.jpg", "dog/1.jpg"])
    with pytest.raises(InputError, match="are one class, 'red circle'"):
        read_dataset(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes on Linux alone")
def test_names_in_other_bytes_than_utf8(tmp_path: Path) -> None:
    pictures(tmp_path, ["cat/1.jpg", "dog/1.jpg"])
    Path(os.fsdecode(os.fsencode(tmp_path / "cat") + b"/caf\xe9.jpg")).write_bytes(b"x")
    assert [item.name for item in read_dataset(tmp_path).items][1:2] == ["cat/caf\\xe9.jpg"]
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")).mkdir()
    with pytest.raises(InputError, match="is not UTF-8"):
        read_dataset(tmp_path)


def test_splits_are_asked_for_by_name(tmp_path: Path) -> None:
    pictures(tmp_path, ["train/cat/1.jpg", "train/dog/1.jpg", "val/cat/1.jpg", "val/dog/1.jpg"])
    with pytest.raises(InputError, match="is parted into 'train', 'val'") as caught:
        read_dataset(tmp_path)
    assert str(tmp_path / "val") in str(caught.value.fix)
    assert read_dataset(tmp_path / "val").classes == ("cat", "dog")


def test_splits_without_classes(tmp_path: Path) -> None:
    pictures(tmp_path, ["train/1.jpg", "test/1.jpg"])
    with pytest.raises(InputError, match="these hold no folder a class"):
        read_dataset(tmp_path)


def test_a_folder_around_the_classes(tmp_path: Path) -> None:
    pictures(tmp_path, ["101_Objects/cat/1.jpg", "101_Objects/dog/1.jpg"])
    with pytest.raises(InputError, match="in one folder only, 101_Objects") as caught:
        read_dataset(tmp_path)
    assert str(tmp_path / "101_Objects") in str(caught.value.fix)


def test_one_class_is_no_choice(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one class is no choice"):
        read_dataset(pictures(tmp_path, ["cat/1.jpg"]))


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    pictures(tmp_path, ["data/cat/1.jpg", "data/dog/1.jpg", "elsewhere/2.jpg"])
    (tmp_path / "data/cat/2.jpg").symlink_to(tmp_path / "elsewhere/2.jpg")
    (tmp_path / "data/cat/around").symlink_to(tmp_path / "data/cat")
    (tmp_path / "data/dog/broken.jpg").symlink_to(tmp_path / "gone.jpg")
    assert [item.name for item in read_dataset(tmp_path / "data").items] == ["cat/1.jpg", "cat/2.jpg", "dog/1.jpg"]


def test_pictures_whose_names_begin_with_their_synset(tmp_path: Path) -> None:
    pictures(tmp_path, ["n02101006_Gordon_setter.JPEG", "n04389033_tank.JPEG", "n02101006_Gordon_setter_2.JPEG"])
    found = read_dataset(tmp_path)
    assert found.layout == "names"
    assert found.classes == ("Gordon setter", "tank")
    assert [item.truth for item in found.items] == [0, 0, 1]


def test_synsets_without_words_need_a_file_of_names(tmp_path: Path) -> None:
    pictures(tmp_path / "data", ["n01440764_10026.JPEG", "n01443537_2.JPEG"])
    with pytest.raises(InputError, match="have no words in their names") as caught:
        read_dataset(tmp_path / "data")
    assert "--classnames" in str(caught.value.fix)
    names = text(tmp_path / "n.json", json.dumps({"n01443537": "goldfish", "n01440764": "tench"}))
    assert read_dataset(tmp_path / "data", classnames=names).classes == ("tench", "goldfish")
    pictures(tmp_path / "data", ["n01440764_eel.JPEG", "n01443537_goldfish.JPEG"])
    with pytest.raises(InputError, match="are called '', 'eel'"):
        read_dataset(tmp_path / "data")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "it is empty"),
        (("1.jpg", "n01440764_tench.JPEG"), "2 pictures of which nothing says the class or captions"),
    ],
)
def test_a_folder_that_is_no_dataset(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_dataset(pictures(tmp_path, names))
    for expected in ("a folder a class", "webdataset", "CSV"):
        assert expected in str(caught.value.fix)


def test_what_is_there_instead_is_told(tmp_path: Path) -> None:
    text(tmp_path / "readme.md", "x")
    (tmp_path / "docs").mkdir()
    with pytest.raises(InputError, match=r"folders without pictures: 'docs'; files: 'readme.md'"):
        read_dataset(tmp_path)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_dataset(tmp_path / "gone")
    with pytest.raises(InputError, match="is not on this machine"):
        read_dataset("https://example.org/data.tar")
    text(tmp_path / "data.zip", "PK")
    with pytest.raises(InputError, match=r"of a kind that is not read: .zip"):
        read_dataset(tmp_path / "data.zip")


def test_a_part_of_a_dataset(tmp_path: Path) -> None:
    pictures(tmp_path, [f"{name}/{number}.jpg" for name in ("cat", "dog") for number in range(5)])
    whole = read_dataset(tmp_path)
    part = limited(whole, 4)
    assert [item.name for item in part.items] == ["cat/0.jpg", "cat/2.jpg", "dog/0.jpg", "dog/2.jpg"]
    assert part.classes == whole.classes
    assert part.notes == ("4 of 10 pictures were taken, spread evenly over them",)
    assert limited(whole, None) is limited(whole, 10) is whole
    assert [item.name for item in subset(whole, [9, 0]).items] == ["dog/4.jpg", "cat/0.jpg"]
    with pytest.raises(InputError, match="0 pictures were asked for"):
        limited(whole, 0)


def test_real_photographs_as_they_lie(photos: list[Path]) -> None:
    folder = next((photo.parent for photo in photos if photo.name.startswith("n01530575_")), None)
    if folder is None:
        pytest.skip("no sample of ImageNet among the photographs")
    found = read_dataset(folder)
    assert found.layout == "names"
    assert found.classes[0] == "brambling"
    assert len(found.classes) == len(found.items) == 128
