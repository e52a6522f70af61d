"""Shards: read by place, told apart from what is broken or hostile, and named as CLIP_benchmark names them."""

from __future__ import annotations

import gzip
import io
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from clipdeploy.errors import ImageError, InputError
from clipdeploy.evaluate.data import read_dataset
from clipdeploy.evaluate.records import Dataset
from tests.evaluate.layouts import jpeg, tar, text


def labelled(folder: Path, *, shards: int = 2, each: int = 3) -> Path:
    """CLIP_benchmark's layout: pictures of different widths with labels 0, 1, 2, 0, ..."""
    for shard in range(shards):
        members = []
        for place in range(each):
            number = shard * each + place
            members += [
                (f"s{number:07d}.cls", b"%d" % (number % 3)),
                (f"s{number:07d}.jpg", jpeg(size=(20 + number, 9))),
            ]
        tar(folder / f"test/{shard}.tar", members)
    text(folder / "test/nshards.txt", f"{shards}\n")
    text(folder / "classnames.txt", "cat\ndog\nhot dog\n")
    text(folder / "zeroshot_classification_templates.txt", "a photo of a {c}.\n{c}\n")
    return folder


def widths(found: Dataset) -> list[int]:
    opened = [item.open() for item in found.items]
    return [Image.open(io.BytesIO(data)).width for data in opened if isinstance(data, bytes)]


def test_the_layout_of_clip_benchmark(tmp_path: Path) -> None:
    found = read_dataset(labelled(tmp_path / "wds"))
    assert (found.name, found.task, found.layout) == ("wds/test", "zeroshot_classification", "webdataset")
    assert found.classes == ("cat", "dog", "hot dog")
    assert found.templates == ("a photo of a {}.", "{}")
    assert [item.truth for item in found.items] == [0, 1, 2, 0, 1, 2]
    assert [item.name for item in found.items][2:4] == ["0.tar/s0000002", "1.tar/s0000003"]
    assert widths(found) == [20, 21, 22, 23, 24, 25]


@pytest.mark.parametrize("place", ["test", "test/{0..1}.tar", "test/{0,1}.tar", "test/*.tar", "{test,test}/0.tar"])
def test_shards_by_folder_and_by_pattern(tmp_path: Path, place: str) -> None:
    found = read_dataset(f"{labelled(tmp_path)}/{place}")
    assert widths(found) == ([20, 21, 22] * 2 if "test,test" in place else [20, 21, 22, 23, 24, 25])


def test_a_single_shard(tmp_path: Path) -> None:
    found = read_dataset(labelled(tmp_path) / "test/1.tar")
    assert widths(found) == [23, 24, 25]
    assert found.classes == ("cat", "dog", "hot dog")


def test_ranges_keep_their_zeros_and_shards_their_order(tmp_path: Path) -> None:
    for number in range(8, 12):
        tar(tmp_path / f"data-{number:03d}.tar", {"a.jpg": jpeg(size=(number, 5)), "a.txt": b"a thing"})
        tar(tmp_path / f"plain/{number}.tar", {"a.jpg": jpeg(size=(number, 5)), "a.txt": b"a thing"})
    assert widths(read_dataset(f"{tmp_path}/data-{{009..011}}.tar")) == [9, 10, 11]
    assert widths(read_dataset(f"{tmp_path}/plain/{{8..10}}.tar")) == [8, 9, 10]
    assert widths(read_dataset(tmp_path / "plain")) == [8, 9, 10, 11]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{0..3}.tar", "2 of the 4 files of .* are missing: .*2.tar"),
        ("{3..0}.tar", "runs backwards"),
        ("{0..99999999999}.tar", "too long"),
        ("{0..999}{0..999}.tar", "means more than"),
        ("{0}.tar", "is no range and no list"),
        ("x*.tar", "matches nothing"),
        ("*.txt", "matches 'nshards.txt', which are not all tars"),
    ],
)
def test_patterns_that_mean_nothing(tmp_path: Path, pattern: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_dataset(f"{labelled(tmp_path)}/test/{pattern}")


def test_shards_that_nshards_names_and_are_missing(tmp_path: Path) -> None:
    text(labelled(tmp_path) / "test/nshards.txt", "4")
    with pytest.raises(InputError, match=r"says 4 shards, and 2 of them are missing: '2.tar', '3.tar'"):
        read_dataset(tmp_path)
    text(tmp_path / "test/nshards.txt", "many")
    with pytest.raises(InputError, match="holds 'many'"):
        read_dataset(tmp_path)


def test_of_several_splits_test_is_taken_and_told(tmp_path: Path) -> None:
    labelled(tmp_path)
    tar(tmp_path / "train/0.tar", {"a.jpg": jpeg(), "a.cls": b"0"})
    assert read_dataset(tmp_path).notes[0] == "of the splits there, test was taken, and not 'train'"
    (tmp_path / "test").rename(tmp_path / "val")
    with pytest.raises(InputError, match="none in test"):
        read_dataset(tmp_path)
    assert len(read_dataset(tmp_path / "val").items) == 6


def test_labels_that_are_names(tmp_path: Path) -> None:
    shard = tar(
        tmp_path / "a.tar",
        {"1.jpg": jpeg(), "1.cls": b"hot_dog\n", "2.webp": jpeg(), "2.cls": b"cat", "3.PNG": jpeg(), "3.cls": b"cat"},
    )
    found = read_dataset(shard)
    assert found.classes == ("cat", "hot dog")
    assert [item.truth for item in found.items] == [1, 0, 0]
    ordered = read_dataset(shard, classnames=text(tmp_path / "names.txt", "hot dog\nant\ncat\n"))
    assert [item.truth for item in ordered.items] == [0, 2, 2]
    assert "classes without a picture: 'ant'" in ordered.notes[1]
    with pytest.raises(InputError, match=r"label 'hot dog' of a.tar/1 is not in"):
        read_dataset(shard, classnames=text(tmp_path / "names.txt", "cat\ndog\n"))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (b"3", r"label 3 of 0.tar/x is out of range: .*classnames.txt names 3 classes, 0 to 2"),
        (b"-1", r"label '-1' of 0.tar/x is neither a number from 0 on nor a name"),
        (b"", r"label '' of 0.tar/x is neither"),
        (b"\xff", r"x.cls in .*0.tar is not UTF-8 text"),
        (b"0" * (2 << 20), "no label and no captions"),
    ],
)
def test_labels_that_cannot_be(tmp_path: Path, label: bytes, message: str) -> None:
    labelled(tmp_path, shards=1)
    tar(tmp_path / "test/0.tar", {"x.jpg": jpeg(), "x.cls": label})
    with pytest.raises(InputError, match=message):
        read_dataset(tmp_path)


def test_numbers_need_names(tmp_path: Path) -> None:
    shard = tar(tmp_path / "a.tar", {"1.jpg": jpeg(), "1.cls": b"7"})
    with pytest.raises(InputError, match=r"labels are numbers up to 7, and there is no classnames.txt") as caught:
        read_dataset(shard)
    assert "--classnames FILE" in str(caught.value.fix)
    names = text(tmp_path / "names.json", '{"0": "cat", "2": "dog"}')
    with pytest.raises(InputError, match="name each of them from 0 on"):
        read_dataset(shard, classnames=names)


def test_captions(tmp_path: Path) -> None:
    tar(
        tmp_path / "test/0.tar",
        {
            "1.jpg": jpeg(),
            "1.txt": "a café\na  red thing\n\n".encode(),
            "2.jpg": jpeg(),
            "2.txt": b"a red thing",
            "3.jpg": jpeg(),
            "4.txt": b"no picture",
        },
    )
    text(tmp_path / "dataset_type.txt", "retrieval\n")
    found = read_dataset(tmp_path)
    assert found.task == "zeroshot_retrieval"
    assert found.captions == ("a café", "a red thing", "a red thing")
    assert [item.captions for item in found.items] == [(0, 1), (2,)]
    assert found.notes == (
        "1 samples without a picture were left out",
        "1 pictures without a caption were left out",
        "1 empty captions were left out",
        "1 captions belong to several pictures each, such as 'a red thing'",
    )
    with pytest.raises(InputError, match="hold captions, not labels"):
        read_dataset(tmp_path, classnames=text(tmp_path / "names.txt", "cat"))


def test_shards_of_several_labels_a_picture(tmp_path: Path) -> None:
    text(labelled(tmp_path) / "dataset_type.txt", "multilabel")
    with pytest.raises(InputError, match="says multilabel"):
        read_dataset(tmp_path)


def test_a_template_without_a_place_for_the_class(tmp_path: Path) -> None:
    text(labelled(tmp_path) / "zeroshot_classification_templates.txt", "a photo")
    with pytest.raises(InputError, match=r"template 'a photo' in .* has no \{c\}"):
        read_dataset(tmp_path)


def test_names_are_cut_as_webdataset_cuts_them(tmp_path: Path) -> None:
    members = {
        "__meta__/x.jpg": b"x",
        "a.b/1.jpg": jpeg(),
        "a.b/1.cls": b"cat",
        "a.b/2.JPG": jpeg(),
        "a.b/2.cls": b"dog",
        "a.b/2.seg.png": b"not a picture of the sample",
    }
    found = read_dataset(tar(tmp_path / "x.tar", members))
    assert [item.name for item in found.items] == ["x.tar/a.b/1", "x.tar/a.b/2"]


def test_a_sample_that_is_there_twice(tmp_path: Path) -> None:
    shard = tar(tmp_path / "x.tar", [("1.jpg", jpeg()), ("1.cls", b"cat"), ("1.jpg", jpeg())])
    with pytest.raises(InputError, match=r"holds 1 twice: 1.jpg and 1.jpg"):
        read_dataset(shard)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"1.mp4": b"x", "1.json": b"{}"}, r"their members end in '.json', '.mp4'"),
        ({"1.jpg": b"x"}, "and 1 are pictures"),
        ({}, "hold no sample"),
    ],
)
def test_shards_without_samples(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_dataset(tar(tmp_path / "x.tar", members))
    assert "NAME.cls" in str(caught.value.fix)


def test_compressed_shards_say_what_to_do(tmp_path: Path) -> None:
    shard = tar(tmp_path / "x.tar", {"1.jpg": jpeg(), "1.cls": b"cat"})
    for name in ("y.tar.gz", "y.tgz", "z.tar"):
        (tmp_path / name).write_bytes(gzip.compress(shard.read_bytes()))
        with pytest.raises(InputError, match="is compressed") as caught:
            read_dataset(tmp_path / name)
        assert f"gunzip --keep {tmp_path / name}" in str(caught.value.fix)


@pytest.mark.parametrize("cut", [300, 700, -1500])
def test_shards_that_are_cut_off_or_something_else(tmp_path: Path, cut: int) -> None:
    shard = tar(tmp_path / "x.tar", {"1.cls": b"cat", "1.jpg": jpeg(size=(300, 300)) * 9})
    shard.write_bytes(shard.read_bytes().rstrip(b"\0")[:cut])
    with pytest.raises(InputError, match="is no tar, or is broken or cut off"):
        read_dataset(shard)


def test_hostile_names_and_links_reach_nothing(tmp_path: Path) -> None:
    text(tmp_path / "secret.jpg", "secret")
    shard = tmp_path / "inner/x.tar"
    tar(shard, {"../secret.jpg": jpeg(), "../secret.cls": b"cat", "/etc/2.jpg": jpeg(), "/etc/2.cls": b"dog"})
    with tarfile.open(shard, "a") as file:
        for name, kind in (("3.jpg", tarfile.SYMTYPE), ("4.jpg", tarfile.LNKTYPE)):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "../secret.jpg"
            file.addfile(link)
            label = tarfile.TarInfo(name.replace("jpg", "cls"))
            label.size = 3
            file.addfile(label, io.BytesIO(b"cat"))
    before = sorted(tmp_path.rglob("*"))
    found = read_dataset(shard)
    assert [item.name for item in found.items] == ["x.tar/../secret", "x.tar//etc/2"]
    assert all(item.open() == jpeg() for item in found.items)
    assert "2 samples without a picture or label were left out" in found.notes
    assert sorted(tmp_path.rglob("*")) == before


def test_many_threads_read_one_shard(tmp_path: Path) -> None:
    found = read_dataset(labelled(tmp_path, shards=1, each=60))
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda item: item.open(), [*found.items] * 4))
    assert [Image.open(io.BytesIO(bytes(data))).width for data in opened] == list(range(20, 80)) * 4  # type: ignore[arg-type]


def test_a_shard_that_changes_meanwhile(tmp_path: Path) -> None:
    found = read_dataset(labelled(tmp_path))
    shard = tmp_path / "test/0.tar"
    shard.write_bytes(shard.read_bytes()[:900])
    with pytest.raises(ImageError, match=r"0.tar ends within s0000000.jpg"):
        found.items[0].open()
    shard.unlink()
    with pytest.raises(ImageError, match=r"0.tar cannot be read"):
        found.items[0].open()


def test_progress_tells_of_each_shard(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    read_dataset(labelled(tmp_path), progress=lambda *what: told.append(what))
    assert told == [("reading shards", done, 2) for done in range(3)]
