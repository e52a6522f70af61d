"""Every stage fails when its seam is broken, and the report names that stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clipdeploy.bundle import Bundle
from clipdeploy.errors import BackendError, CheckpointError, InputError
from clipdeploy.verify import FP32_GATES, STAGES, CheckpointReference, GoldenReference, ParityReport, verify
from tests.verify.fakes import SPEC, FakeCheckpoint, FakeClip, read, see, unit

END = SPEC.tokens.end_id


def climb(bundle: Bundle, reference: Any, clip: Any, **options: Any) -> ParityReport:
    return verify(bundle, reference=reference, clip=clip, **options)


def failing(report: ParityReport) -> list[str]:
    return [stage.name for stage in report.stages if not stage.passed]


@pytest.mark.parametrize("kind", ["golden", "pytorch"])
def test_a_faithful_clip_passes(bundle: Bundle, kind: str, request: pytest.FixtureRequest) -> None:
    seen: list[tuple[str, int, int]] = []
    reference = request.getfixturevalue(kind)
    report = climb(bundle, reference, FakeClip(), progress=lambda *step: seen.append(step))
    assert report.passed
    assert report.first_drift is None
    assert failing(report) == []
    assert [stage.name for stage in report.stages] == list(STAGES)
    assert (report.reference, report.backend, report.precision) == (kind, "numpy", "fp32")
    assert report.bundle == "fake"
    assert len(report.cosines) == len(report.pictures) == 10
    assert all(len(row) == len(report.texts) for row in report.cosines)
    assert "Pillow" in report.versions
    assert "Pillow" in report.reference_versions
    assert [step[0] for step in seen] == ["reference", *STAGES, "report"]
    assert seen[-1][1] == seen[-1][2]


def brighter(crop: np.ndarray) -> np.ndarray:
    changed = crop.copy()
    changed[3, 4, 1] ^= 1
    return changed


def nan_in_one(rows: np.ndarray) -> np.ndarray:
    rows[-1, 0] = np.nan
    return rows


def turned(rows: np.ndarray, by: float) -> np.ndarray:
    """Rows turned a little, so that the largest difference is about `by`."""
    return unit(rows.astype(np.float64) + by * np.sign(np.arange(rows.shape[1]) % 2 - 0.5))


def blind(batch: np.ndarray) -> np.ndarray:
    return np.repeat(see(np.ones((1, *batch.shape[1:]), np.float32)), len(batch), axis=0)


def fixed_batch(batch: np.ndarray) -> np.ndarray:
    """As a graph traced at batch 1 does it: right alone, mixed together."""
    return see(batch if len(batch) == 1 else np.repeat(batch.mean(axis=0, keepdims=True), len(batch), axis=0))


def long_ids_cut(ids: np.ndarray) -> np.ndarray:
    """The end token is lost where a text is too long."""
    changed = ids.copy()
    changed[changed[:, -1] == END, -1] = 33
    return changed


def padded_with_end(ids: np.ndarray) -> np.ndarray:
    return np.where(ids == 0, END, ids)


def some_changed(ids: np.ndarray) -> np.ndarray:
    """As when one text in two is cleaned otherwise."""
    changed = ids.copy()
    changed[::2, 1] = 77
    return changed


def fails(batch: np.ndarray) -> np.ndarray:
    raise BackendError("the engine fell over", fix="use another")


BROKEN: dict[str, tuple[dict[str, Callable[[Any], Any]], str, str]] = {
    "a crop one level off": ({"crops": brighter}, "pixels", "rounds"),
    "blue for red": ({"crops": lambda c: c[..., ::-1]}, "pixels", "swapped"),
    "crop a pixel aside": ({"crops": lambda c: np.roll(c, 1, axis=1)}, "pixels", "pixel aside"),
    "mirrored": ({"crops": lambda c: c[:, ::-1]}, "pixels", "resize mode"),
    "another size": ({"crops": lambda c: c[:-1]}, "pixels", "image size"),
    "floats a hair off": ({"floats": lambda f: np.nextafter(f, np.float32(9))}, "pixels", "mean"),
    "doubles": ({"floats": lambda f: f.astype(np.float64)}, "pixels", "expected"),
    "ids off by one": ({"ids": lambda i: i + 1}, "tokens", "off by 1"),
    "other padding": ({"ids": padded_with_end}, "tokens", "padded"),
    "cut otherwise": ({"ids": long_ids_cut}, "tokens", "too long"),
    "cleaned otherwise": ({"ids": some_changed}, "tokens", "cleaning"),
    "another tokenizer": ({"ids": lambda i: np.roll(i, 1, axis=1)}, "tokens", "another tokenizer"),
    "shorter context": ({"ids": lambda i: i[:, :-1]}, "tokens", "expected"),
    "nan": ({"images": lambda p: nan_in_one(see(p))}, "image_tower", "overflow"),
    "infinity": ({"images": lambda p: see(p) * np.float32(np.inf)}, "image_tower", "overflow"),
    "ignores its input": ({"images": blind}, "image_tower", "ignores its input"),
    "a thousandth off": ({"images": lambda p: turned(see(p), 1e-3)}, "image_tower", "close"),
    "no L2 norm": ({"images": lambda p: 7 * see(p)}, "image_tower", "L2 norm"),
    "norm a little off": ({"images": lambda p: see(p) * np.float32(1.00003)}, "image_tower", "close"),
    "batch fixed": ({"images": fixed_batch}, "image_tower", "depends on its batch"),
    "rows mixed up": ({"images": lambda p: see(p)[::-1]}, "image_tower", "another order"),
    "another image tower": ({"images": lambda p: see(p, seed=5)}, "image_tower", "QuickGELU"),
    "half of D": ({"images": lambda p: see(p)[:, ::2]}, "image_tower", "expected"),
    "engine fails": ({"images": fails}, "image_tower", "fell over"),
    "zeros": ({"texts": lambda i: 0 * read(i)}, "text_tower", "ignores its input"),
    "another text tower": ({"texts": lambda i: read(i, seed=5)}, "text_tower", "EOT"),
    "text nan": ({"texts": lambda i: nan_in_one(read(i))}, "text_tower", "overflow"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_seam_is_named(bundle: Bundle, golden: GoldenReference, name: str) -> None:
    seams, stage, cause = BROKEN[name]
    report = climb(bundle, golden, FakeClip(**seams))
    assert report.first_drift == stage
    followers = {"similarity", "top1"}  # only these go end to end
    assert set(failing(report)) - followers == {stage}
    finding = report.stage(stage).finding  # type: ignore[arg-type]
    assert finding is not None
    assert cause in finding.cause
    assert finding.fix
    for follower in followers & set(failing(report)):
        follows = report.stage(follower).finding  # type: ignore[arg-type]
        assert follows is not None
        assert stage in follows.cause or follows.numbers == "the stage could not be run"


def test_the_worst_sample_is_named(bundle: Bundle, golden: GoldenReference) -> None:
    names = [picture.name for picture in golden.pictures]
    worst = golden.image_embeds[4]

    def images(pixels: np.ndarray) -> np.ndarray:
        rows = see(pixels)
        hit = np.abs(rows - worst).max(axis=1) < 1e-6
        rows[hit] = turned(rows[hit], 0.01)
        return rows

    report = climb(bundle, golden, FakeClip(images=images))
    finding = report.stage("image_tower").finding
    assert finding is not None
    assert finding.sample == names[4]
    assert "max abs 0.0" in finding.numbers
    assert [s.name for s in report.stage("image_tower").samples if not s.passed] == [names[4]]


def test_only_jpeg_crops_differ(bundle: Bundle, golden: GoldenReference) -> None:
    clip = FakeClip()
    exact = clip.images.crop
    clip.images.crop = lambda path: brighter(exact(path)) if path.suffix == ".jpg" else exact(path)
    report = climb(bundle, golden, clip)
    finding = report.stage("pixels").finding
    assert finding is not None
    assert finding.sample == "hills.jpg"
    assert "JPEG decoder" in finding.cause
    assert "1 of 10 crops" in finding.numbers


def test_a_tower_blind_to_small_differences_fails_by_its_spread(bundle: Bundle, golden: GoldenReference) -> None:
    """Where the reference's embeddings lie close together, a constant keeps max abs and cosine; not the spread."""
    centre = see(np.ones((1, 3, 32, 32), np.float32))

    def close(pixels: np.ndarray) -> np.ndarray:
        return unit(centre.astype(np.float64) + 1e-4 * see(pixels))

    near = arrays(golden, image_embeds=close(golden.pixels))
    assert climb(bundle, near, FakeClip(images=close)).passed
    constant = FakeClip(images=lambda pixels: np.repeat(centre, len(pixels), axis=0))
    stage = climb(bundle, near, constant).stage("image_tower")
    assert [check.name for check in stage.checks if not check.passed] == ["distinct kept apart"]
    assert stage.finding is not None
    assert "fall together" in stage.finding.numbers
    assert "ignores its input" in stage.finding.cause


def test_a_reference_that_tells_nothing_apart_is_noted(bundle: Bundle, golden: GoldenReference) -> None:
    flat = arrays(golden, image_embeds=np.repeat(golden.image_embeds[:1], len(golden.pictures), axis=0))
    clip = FakeClip(images=lambda p: np.repeat(golden.image_embeds[:1], len(p), axis=0))
    stage = climb(bundle, flat, clip).stage("image_tower")
    assert "cannot be shown" in stage.notes[0]
    assert "distinct kept apart" not in [check.name for check in stage.checks]


def test_only_the_whole_drifts(bundle: Bundle, golden: GoldenReference) -> None:
    """State kept between calls: right while the tower is tested, wrong afterwards."""
    calls = 0

    def images(pixels: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        return see(pixels) if calls <= 12 else turned(see(pixels), 1e-3)

    report = climb(bundle, golden, FakeClip(images=images))
    assert report.first_drift == "similarity"
    finding = report.stage("similarity").finding
    assert finding is not None
    assert "state kept" in finding.cause


def close_call(golden: GoldenReference, margin: float, drift: float) -> tuple[Any, FakeClip]:
    """A reference where a text is second to picture 0's best by `margin`, and a clip where it leads by `drift`."""
    picture = golden.image_embeds[0].astype(np.float64)
    best = int((golden.text_embeds @ golden.image_embeds[0]).argmax())
    other = (best + 1) % len(golden.texts)
    theirs, ours = golden.text_embeds.copy(), golden.text_embeds.copy()
    theirs[other] = unit((golden.text_embeds[best] - margin * picture)[None])[0]
    ours[other] = unit((golden.text_embeds[best] + drift * picture)[None])[0]
    rows = {ids.tobytes(): row for ids, row in zip(golden.tokens, ours, strict=True)}
    clip = FakeClip(texts=lambda ids: np.stack([rows[one.tobytes()] for one in ids]))
    return arrays(golden, text_embeds=theirs), clip


def test_right_cosines_in_the_wrong_order(bundle: Bundle, golden: GoldenReference) -> None:
    reference, clip = close_call(golden, margin=5e-5, drift=4e-5)
    report = climb(bundle, reference, clip)
    assert failing(report) == ["top1"]
    finding = report.stage("top1").finding
    assert finding is not None
    assert "close call" in finding.cause
    picture = report.stage("top1").samples[0]
    assert not picture.passed
    assert "expected" in picture.note


def test_a_tie_is_no_error_and_is_said(bundle: Bundle, golden: GoldenReference) -> None:
    reference, clip = close_call(golden, margin=1e-6, drift=1e-6)
    report = climb(bundle, reference, clip)
    top1 = report.stage("top1")
    assert top1.passed
    assert "ties" in top1.notes[0]
    assert top1.samples[0].note.startswith("tie of")
    assert "of 25 decided" not in top1.checks[0].unit  # what is undecided is not counted


def test_a_lower_top1_gate_lets_a_flip_pass(bundle: Bundle, golden: GoldenReference) -> None:
    reference, clip = close_call(golden, margin=5e-5, drift=4e-5)
    assert climb(bundle, reference, clip, gates=replace(FP32_GATES, top1=0.3)).passed


def test_a_bundle_goes_by_another_name(bundle: Bundle, golden: GoldenReference) -> None:
    """While it is being made, its folder has a temporary one."""
    assert climb(bundle, golden, FakeClip(), name="b32").bundle == "b32"


def test_gates_are_gates(bundle: Bundle, golden: GoldenReference) -> None:
    clip = FakeClip(images=lambda pixels: turned(see(pixels), 5e-5))
    assert climb(bundle, golden, clip).stage("image_tower").passed
    tighter = climb(bundle, golden, clip, gates=replace(FP32_GATES, max_abs=1e-5))
    assert not tighter.stage("image_tower").passed


def test_other_weights_are_suspected(bundle: Bundle, pytorch: CheckpointReference) -> None:
    pytorch.weights_sha256 = "2" * 64
    report = climb(bundle, pytorch, FakeClip(images=lambda pixels: see(pixels, seed=5)))
    finding = report.stage("image_tower").finding
    assert finding is not None
    assert "other weights" in finding.cause


def test_the_reference_runs_in_batches(pytorch: CheckpointReference) -> None:
    checkpoint = FakeCheckpoint()
    reference = CheckpointReference(checkpoint, pytorch.pictures, pytorch.texts)  # type: ignore[arg-type]
    assert reference.image_embeds.shape == (10, 16)
    assert reference.text_embeds.shape == (21, 16)
    assert sum(checkpoint.batch_sizes) == 31
    assert min(checkpoint.batch_sizes) > 1


def test_a_clip_of_another_bundle_is_refused(bundle: Bundle, golden: GoldenReference) -> None:
    clip = FakeClip()
    clip.embedding_space = "f" * 16
    with pytest.raises(InputError, match="embedding space"):
        climb(bundle, golden, clip)


def test_one_picture_is_not_enough(pytorch: CheckpointReference) -> None:
    with pytest.raises(InputError, match="two pictures"):
        CheckpointReference(FakeCheckpoint(), pytorch.pictures[:1], pytorch.texts)  # type: ignore[arg-type]


def test_a_checkpoint_that_is_not_finite_itself(pytorch: CheckpointReference) -> None:
    checkpoint = FakeCheckpoint()
    checkpoint.reference_text_embeds = lambda ids: nan_in_one(read(ids))  # type: ignore[method-assign]
    reference = CheckpointReference(checkpoint, pytorch.pictures, pytorch.texts)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="text tower gives non-finite"):
        _ = reference.text_embeds


@pytest.mark.parametrize("change", [{"max_abs": -1.0}, {"top1": 1.1}, {"cosine": 2.0}])
def test_impossible_gates_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(InputError, match="impossible gates"):
        replace(FP32_GATES, **change)


def arrays(reference: GoldenReference, **changes: np.ndarray) -> Any:
    """The reference with some arrays replaced."""
    return SimpleNamespace(**{**vars(reference), "kind": reference.kind, "settle": reference.settle, **changes})
