"""Files of pictures and captions, as they come with published datasets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clipdeploy.demo.dataset import write_captions
from clipdeploy.errors import InputError
from clipdeploy.evaluate.data import limited, read_dataset, subset
from clipdeploy.evaluate.records import Dataset
from tests.evaluate.layouts import pictures, text

EXPECTED = {"a.jpg": ["one, two", 'a "quoted" thing'], "b.jpg": ["three"]}


def read(found: Dataset) -> dict[str, list[str]]:
    return {item.name: [found.captions[index] for index in item.captions] for item in found.items}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return pictures(tmp_path, ["images/a.jpg", "images/b.jpg"])


TABLES = {
    "plain.csv": 'image,caption\na.jpg,"one, two"\na.jpg,"a ""quoted"" thing"\nb.jpg,three\n',
    "unquoted.csv": 'image,caption\na.jpg,one, two\na.jpg,a "quoted" thing\nb.jpg,three\n',
    "open_clip.tsv": 'filepath\ttitle\na.jpg\tone, two\na.jpg\ta "quoted" thing\nb.jpg\tthree\n',
    "python.tsv": 'image\tcaption\na.jpg\tone, two\na.jpg\t"a ""quoted"" thing"\nb.jpg\tthree\n',
    "headless.tsv": 'a.jpg\tone, two\na.jpg\ta "quoted" thing\nb.jpg\tthree\n',
    "kaggle.txt": '\ufeffimage,caption\r\na.jpg,"one, two"\r\na.jpg,a "quoted" thing\r\nb.jpg,three\r\n',
    "order.csv": 'id,text,file_name\n0,"one, two",a.jpg\n1,"a ""quoted"" thing",a.jpg\n2,three,b.jpg\n',
    "semicolon.csv": 'image;caption\na.jpg;one, two\na.jpg;a "quoted" thing\nb.jpg;three\n',
    "split.csv": 'raw,split,filename\n"[""one, two"", ""a \\""quoted\\"" thing""]",test,a.jpg\n'
    '"[""three""]",test,b.jpg\n"[""no""]",train,c.jpg\n',
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(folder: Path, name: str) -> None:
    (folder / name).write_text(TABLES[name], encoding="utf-8", newline="")
    found = read_dataset(folder / name)
    assert (found.task, found.layout) == ("zeroshot_retrieval", "csv")
    assert read(found) == EXPECTED
    assert found.items[1].open() == folder / "images/b.jpg"


FLICKR = {
    "Flickr8k.token.txt": 'a.jpg#0\tone, two\na.jpg#1\ta "quoted" thing\nb.jpg#0\tthree\n',
    "results_20130124.token": 'a.jpg#0\tone, two\na.jpg#1\ta "quoted" thing\nb.jpg#0\tthree\n',
    "results.csv": "image_name| comment_number| comment\n"
    'a.jpg| 0| one, two\na.jpg| 1| a "quoted" thing\nb.jpg| 0| three\n',
}


@pytest.mark.parametrize("name", FLICKR)
def test_flickr(folder: Path, name: str) -> None:
    text(folder / name, FLICKR[name])
    for found in (read_dataset(folder / name), read_dataset(folder)):
        assert found.layout == "flickr"
        assert read(found) == EXPECTED


LIST = [{"image": "a.jpg", "caption": EXPECTED["a.jpg"]}, {"image": "b.jpg", "caption": "three"}]
KARPATHY = {
    "dataset": "x",
    "images": [
        {"filename": "c.jpg", "split": "train", "sentences": [{"raw": "no"}]},
        {"filename": "a.jpg", "split": "test", "sentences": [{"raw": raw} for raw in EXPECTED["a.jpg"]]},
        {"filename": "b.jpg", "split": "test", "sentences": [{"raw": "three"}]},
    ],
}
COCO = {
    "info": {},
    "images": [{"id": 9, "file_name": "b.jpg"}, {"id": 4, "file_name": "a.jpg"}, {"id": 5, "file_name": "c.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 9, "caption": "three"},
        *({"id": 2, "image_id": 4, "caption": caption} for caption in EXPECTED["a.jpg"]),
    ],
}
DOCUMENTS: dict[str, tuple[Any, str]] = {
    "list": (LIST, "json"),
    "object": (EXPECTED, "json"),
    "annotations": ({"annotations": LIST}, "json"),
    "karpathy": (KARPATHY, "karpathy"),
    "coco": (COCO, "coco"),
}


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_json(folder: Path, kind: str) -> None:
    content, layout = DOCUMENTS[kind]
    found = read_dataset(text(folder / "x.json", json.dumps(content)))
    assert found.layout == layout
    assert read(found) == EXPECTED


def test_what_was_left_out_is_told(folder: Path) -> None:
    assert read_dataset(text(folder / "x.json", json.dumps(COCO))).notes == (
        "1 pictures without a caption were left out",
    )
    assert read_dataset(text(folder / "y.json", json.dumps(KARPATHY))).notes == (
        "of its splits, test was taken, and not 'train'",
    )


def test_an_object_a_line(folder: Path) -> None:
    lines = [{"file_name": "a.jpg", "text": EXPECTED["a.jpg"]}, {"file_name": "b.jpg", "text": "three"}]
    found = read_dataset(text(folder / "metadata.jsonl", "\n".join(map(json.dumps, lines)) + "\n\n"))
    assert found.layout == "jsonl"
    assert found.name == folder.name
    assert read(found) == EXPECTED


def test_coco_as_it_is_unpacked(tmp_path: Path) -> None:
    pictures(tmp_path, ["val2017/a.jpg", "val2017/b.jpg"])
    text(tmp_path / "annotations/captions_val2017.json", json.dumps(COCO))
    assert read(read_dataset(tmp_path)) == EXPECTED


def test_the_demo_world_as_it_is_written(tmp_path: Path) -> None:
    written = write_captions(tmp_path / "demo", count=6, size=(32, 24))
    found = read_dataset(tmp_path / "demo")
    assert found.name == "demo"
    assert sorted(found.captions) == sorted(written.captions)
    assert [item.open() for item in found.items] == list(dict.fromkeys(written.paths))
    assert [item.captions for item in found.items] == [(2 * row, 2 * row + 1) for row in range(6)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "", "is empty"),
        ("x.csv", "image,score\na.jpg,3\n", "has no column of captions; its columns are 'image', 'score'"),
        ("x.csv", "who,caption\na,b\n", "has no column of pictures"),
        ("x.csv", "image,caption\na.jpg,ok\nb.jpg\n", "1 rows of .* have fewer than 2 fields: 'row 3: b.jpg'"),
        ("x.csv", 'image,caption\na.jpg,"open\nb.jpg,three\n', r"a quote \(\"\) is open in 'a.jpg'"),
        ("x.csv", "image,caption\n", "names no picture"),
        ("x.csv", "image,caption\na.jpg,\n", "no picture with a caption"),
        ("x.csv", "image,caption\n../a.jpg,x\n", r"'../a.jpg': no path below its folder"),
        ("x.csv", "image,caption\n/etc/a.jpg,x\n", "'/etc/a.jpg': no path below"),
        ("x.csv", "image,caption\nC:\\a.jpg,x\n", "no path below"),
        ("x.csv", "image,caption\nhttp://x/a.jpg,x\n", "no path below"),
        ("x.csv", "image,caption\na.jpg,x\ngone.jpg,y\n", "1 of the 2 pictures .* are missing: 'gone.jpg'"),
        ("x.token", "a.jpg#0\tone\nb.jpg one\n", "line 2 of .* is 'b.jpg one'"),
        ("x.json", "{", "is no JSON"),
        ("x.json", "3", "JSON of none of the layouts"),
        ("x.json", '[{"image": "a.jpg"}]', 'has an entry without "caption"'),
        ("x.json", '[{"image": "a.jpg", "caption": [3]}]', "captions of a.jpg that are no texts"),
        ("x.json", '["a.jpg"]', 'has an entry without "image"'),
        ("x.json", '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 2, "caption": "x"}]}',
         "has a caption of image 2"),
        ("x.json", '{"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}], "annotations": []}',
         "two images of one id"),
        ("x.json", '{"images": [{"filename": "a.jpg", "split": "val", "sentences": []}, '
         '{"filename": "b.jpg", "split": "train", "sentences": []}]}', "splits 'train', 'val', and none is test"),
        ("x.jsonl", '{"image": "a.jpg", "caption": "x"}\n{', "line 2 of .* is no JSON"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit(folder: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_dataset(text(folder / name, content))
    assert caught.value.fix


def test_a_table_that_is_not_utf8(folder: Path) -> None:
    (folder / "x.csv").write_bytes(b"image,caption\na.jpg,caf\xe9\n")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_dataset(folder / "x.csv")


def test_few_missing_pictures_and_short_rows_are_told(tmp_path: Path) -> None:
    """Flickr8k's file names a picture that was never published, and Flickr30k's has a row with a field too few."""
    names = [f"{number:03d}.jpg" for number in range(120)]
    pictures(tmp_path, names)
    rows = [f"{name}| 0| a thing {name}" for name in names]
    table = "image_name| comment_number| comment\n" + "\n".join([*rows, "007.jpg| 4   A dog runs .", "x.jpg| 0| gone"])
    found = read_dataset(text(tmp_path / "results.csv", table))
    assert len(found.items) == 120
    assert found.notes == (
        "1 rows with fewer than 3 fields were left out: 'row 122: 007.jpg| 4   A dog runs .'",
        "1 of 121 pictures are missing and were left out: 'x.jpg'",
    )


def test_a_link_that_leads_out_of_the_folder(tmp_path: Path) -> None:
    pictures(tmp_path, ["data/b.jpg", "secret/a.jpg"])
    (tmp_path / "data/a.jpg").symlink_to(tmp_path / "secret/a.jpg")
    with pytest.raises(InputError, match=r"'a.jpg' is a link that leads out"):
        read_dataset(text(tmp_path / "data/x.csv", "image,caption\na.jpg,x\n"))


def test_the_folder_of_pictures_may_be_a_link(tmp_path: Path) -> None:
    pictures(tmp_path, ["elsewhere/a.jpg", "elsewhere/b.jpg"])
    (tmp_path / "data").mkdir()
    (tmp_path / "data/images").symlink_to(tmp_path / "elsewhere")
    assert read(read_dataset(text(tmp_path / "data/x.json", json.dumps(LIST)))) == EXPECTED


def test_two_files_of_captions_in_a_folder(folder: Path) -> None:
    text(folder / "captions.csv", TABLES["plain.csv"])
    text(folder / "captions.tsv", TABLES["python.tsv"])
    with pytest.raises(InputError, match=r"several files of captions: 'captions.csv', 'captions.tsv'"):
        read_dataset(folder)


def test_classes_and_captions_in_one_folder(folder: Path) -> None:
    pictures(folder, ["cat/1.jpg", "dog/1.jpg"])
    text(folder / "captions.csv", TABLES["plain.csv"])
    found = read_dataset(folder)
    assert found.layout == "folders"
    assert found.notes[-1] == f"captions lie there too: name {folder / 'captions.csv'} for retrieval"


def test_names_of_classes_say_nothing_of_captions(folder: Path) -> None:
    table = text(folder / "captions.csv", TABLES["plain.csv"])
    for place in (table, folder):
        with pytest.raises(InputError, match="has captions, not classes"):
            read_dataset(place, classnames=text(folder / "names.txt", "x"))


def test_a_part_keeps_its_captions_alone(tmp_path: Path) -> None:
    whole = read_dataset(write_captions(tmp_path / "demo", count=6, size=(32, 24)).table)
    part = subset(whole, [4, 1])
    assert {name: read(whole)[name] for name in read(part)} == read(part)
    assert len(part.captions) == 4
    assert len(limited(whole, 3).captions) == 6


def test_real_captions_as_they_lie(photos: list[Path]) -> None:
    folder = next((photo.parent for photo in photos if (photo.parent / "captions.tsv").is_file()), None)
    if folder is None:
        pytest.skip("no captions among the photographs")
    found = read_dataset(folder)
    assert len(found.captions) == 5 * len(found.items) == 1000
