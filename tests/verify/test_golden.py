"""Golden samples: what is written is what is read, and nothing else is."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipdeploy.bundle import Bundle
from clipdeploy.errors import BundleCorruptError, ExportError, ImageError
from clipdeploy.verify import GoldenReference, load_pictures, read_golden, write_golden
from clipdeploy.verify.golden import GOLDEN_TEXTS
from clipdeploy.verify.measure import normalise
from clipdeploy.verify.pictures import paint_pictures
from tests.bundles import pixel_spec
from tests.verify.conftest import as_any
from tests.verify.fakes import SPEC, FakeCheckpoint, crop, digest, empty_bundle, read, see, tokenize


def test_round_trip(bundle: Bundle) -> None:
    golden = read_golden(bundle)
    assert golden.texts == GOLDEN_TEXTS
    assert (golden.input_ids == tokenize(GOLDEN_TEXTS)).all()
    assert (golden.crops == np.stack([crop(Image.open(p.path)) for p in golden.pictures])).all()
    assert (golden.image_embeds == see(golden.pixels)).all()
    assert (golden.text_embeds == read(golden.input_ids)).all()
    assert golden.tools["Pillow"]
    assert all(entry.kind == "golden" for entry in bundle.manifest.files.values())
    assert "fake" in bundle.manifest.files["golden/golden.json"].origin


def test_the_pictures_cover_modes_and_shapes(bundle: Bundle) -> None:
    golden = read_golden(bundle)
    images = [picture.open() for picture in golden.pictures]
    assert {image.mode for image in images} == {"RGB", "RGBA", "L", "P"}
    assert {picture.path.suffix for picture in golden.pictures} == {".png", ".jpg"}
    shapes = {(w > h) - (w < h) for w, h in (image.size for image in images)}
    assert shapes == {-1, 0, 1}
    assert min(min(image.size) for image in images) < 20
    assert max(max(image.size) for image in images) > 1000
    assert len(np.unique(golden.crops.reshape(len(images), -1), axis=0)) == len(images)


def test_the_pictures_have_structure_and_odd_margins() -> None:
    spec = pixel_spec(224, 224)
    paintings = {painting.name: painting.image for painting in paint_pictures(spec)}
    assert (paintings["bricks.png"].width - 224) % 4 == 1  # half of it ends in .5: floor and round disagree or tie
    assert (paintings["floor.png"].height - 224) % 4 == 3
    for name, image in paintings.items():
        assert np.asarray(image.convert("L")).std() > 10, name


def test_a_seed_gives_the_same_pictures() -> None:
    def bytes_of(seed: int) -> list[bytes]:
        return [painting.image.tobytes() for painting in paint_pictures(pixel_spec(), seed=seed)]

    assert bytes_of(3) == bytes_of(3)
    assert bytes_of(3) != bytes_of(4)


def test_it_is_small(tmp_path: Path) -> None:
    spec = replace(SPEC, pixels=pixel_spec(224, 224))
    bundle = empty_bundle(tmp_path / "b", spec)
    write_golden(as_any(FakeCheckpoint(spec)), bundle)
    assert sum(entry.size_bytes for entry in bundle.manifest.files.values()) < 600_000


def test_users_samples_are_added(tmp_path: Path) -> None:
    photo = tmp_path / "my <photo> & Ä.PNG"
    Image.effect_noise((50, 40), 80).save(photo)
    bundle = empty_bundle(tmp_path / "b")
    write_golden(as_any(FakeCheckpoint()), bundle, images=[photo], texts=["a cat on a mat", GOLDEN_TEXTS[0]])
    golden = read_golden(Bundle.open(bundle.folder))
    assert golden.pictures[-1].name == "user-00-my--photo-----.png"
    assert golden.pictures[-1].path.read_bytes() == photo.read_bytes()
    assert golden.texts == (*GOLDEN_TEXTS, "a cat on a mat")


def test_a_users_broken_picture_is_refused_by_name(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 not a picture")
    bundle = empty_bundle(tmp_path / "b")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        write_golden(as_any(FakeCheckpoint()), bundle, images=[broken])
    assert not bundle.manifest.files


def test_pictures_to_verify_with_have_their_own_names(tmp_path: Path) -> None:
    files = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        files += [tmp_path / folder / "same.png", tmp_path / folder / f"{folder}.png"]
    for file in files:
        Image.new("RGB", (4, 4)).save(file)
    assert [picture.name for picture in load_pictures(files)] == [str(files[0]), "a.png", str(files[2]), "b.png"]
    with pytest.raises(ImageError, match="nowhere"):
        load_pictures([tmp_path / "nowhere.png"])


def test_a_transform_that_the_bundle_cannot_describe(tmp_path: Path) -> None:
    checkpoint = FakeCheckpoint()
    exact = checkpoint.reference_pixels
    checkpoint.reference_pixels = lambda image: exact(image) + np.float32(1e-6)  # type: ignore[method-assign]
    with pytest.raises(ExportError, match="cannot describe"):
        write_golden(as_any(checkpoint), empty_bundle(tmp_path / "b"))


def test_the_normalised_pixels_are_torchvisions() -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    crops = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    spec = pixel_spec()
    steps = transforms.Compose([transforms.ToTensor(), transforms.Normalize(spec.mean, spec.std)])
    assert (normalise(crops, spec) == np.stack([steps(Image.fromarray(c)).numpy() for c in crops])).all()


@pytest.mark.parametrize("name", ["golden.npz", "golden.json", "rings.png"])
def test_an_altered_file_is_found_when_the_bundle_opens(bundle: Bundle, name: str) -> None:
    path = bundle.folder / "golden" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleCorruptError, match=f"{name} is altered"):
        Bundle.open(bundle.folder)


@pytest.mark.parametrize(
    ("array", "where"),
    [("crops", "crop of lighthouse.png"), ("input_ids", "token ids of"), ("image_embeds", "embeddings")],
)
def test_an_altered_array_is_found_without_the_manifest(bundle: Bundle, array: str, where: str) -> None:
    golden = bundle.folder / "golden/golden.npz"
    with np.load(golden) as stored:
        arrays = dict(stored)
    arrays[array].reshape(-1)[7] += 1
    np.savez_compressed(golden, **arrays)
    with pytest.raises(BundleCorruptError, match="altered") as caught:
        read_golden(bundle)
    assert where in caught.value.message or "normalised pixels" in caught.value.message
    assert caught.value.fix


def spoil(bundle: Bundle, how: str) -> None:
    npz, index = bundle.folder / "golden/golden.npz", bundle.folder / "golden/golden.json"
    notes: dict[str, Any] = json.loads(index.read_text())
    if how == "truncated":
        npz.write_bytes(npz.read_bytes()[:-200])
    elif how == "array gone":
        np.savez(npz, crops=np.zeros(3, np.uint8))
    elif how == "shape":
        with np.load(npz) as stored:
            arrays = dict(stored)
        np.savez(npz, **{**arrays, "text_embeds": arrays["text_embeds"][:, :-1]})
    elif how == "pickle":
        np.savez(npz, crops=np.array([{}], dtype=object))
    elif how == "no json":
        index.write_text("{")
    elif how == "unknown key":
        index.write_text(json.dumps({**notes, "extra": 1}))
    else:
        index.write_text(json.dumps({**notes, "format": 99}))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "cannot be read"),
        ("array gone", "cannot be read"),
        ("shape", "expected"),
        ("pickle", "cannot be read"),
        ("no json", "cannot be read"),
        ("unknown key", "unknown key 'extra'"),
        ("format", "format 99"),
    ],
)
def test_what_cannot_be_read_is_said(bundle: Bundle, how: str, message: str) -> None:
    spoil(bundle, how)
    with pytest.raises(BundleCorruptError, match=message) as caught:
        GoldenReference(bundle)
    assert caught.value.fix


def test_a_bundle_without_golden_samples(tmp_path: Path) -> None:
    with pytest.raises(BundleCorruptError, match="no golden samples"):
        read_golden(empty_bundle(tmp_path / "b"))


def test_a_seed_gives_the_same_files(bundle: Bundle, tmp_path: Path) -> None:
    again = empty_bundle(tmp_path / "again")
    write_golden(as_any(FakeCheckpoint()), again)
    for name in bundle.manifest.files:
        if not name.endswith(".npz"):  # a zip carries the time
            assert digest(bundle.folder / name) == digest(again.folder / name), name


def test_verify_needs_no_pytorch() -> None:
    code = "import sys, clipdeploy.verify; print(sorted({'torch', 'onnx', 'click', 'open_clip'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
