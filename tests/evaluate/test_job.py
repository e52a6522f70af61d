"""The stage, on pictures of noise that a tiny bundle names: its own fp32 answers are the truth."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipdeploy.bank import BankRequest, bank_labels
from clipdeploy.bundle import Bundle
from clipdeploy.errors import BackendError, ImageError, InputError, OutputError, TextError
from clipdeploy.evaluate.job import evaluate_bundle
from clipdeploy.evaluate.records import EvaluateRequest, EvaluateResult
from clipdeploy.pack import PackRequest, pack_bundle
from clipdeploy.runtime.clip import load
from clipdeploy.spec import Precision, Tower
from tests.bundles import make_bundle
from tests.evaluate.noise import CLASSES, noise_bundle, noise_data

pytest.importorskip("onnxruntime")

COUNT = 90
ORT = ("onnxruntime",)
Evaluate = Callable[..., EvaluateResult]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_bundle(tmp_path_factory.mktemp("evaluate") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Path:
    return noise_data(tmp_path_factory.mktemp("evaluate") / "noise", bundle, count=COUNT)


@pytest.fixture
def evaluate(bundle: Path, data: Path) -> Evaluate:
    def call(**asked: Any) -> EvaluateResult:
        given = {"bundle": bundle, "data": data, "backends": ORT, **asked}
        return evaluate_bundle(EvaluateRequest(**given))

    return call


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def test_figures_are_those_that_a_clip_gives(evaluate: Evaluate, bundle: Path, data: Path) -> None:
    result = evaluate(groups=None)
    reference, less = result.pairs
    assert (reference.name, less.name) == ("onnxruntime fp32", "onnxruntime fp16")
    assert reference.metrics["acc1"] == 1.0 and reference.agreement is None and reference.drops == ()
    names = files_in(data)
    with load(bundle, backend="onnxruntime", precision="fp16") as clip:
        answers = clip.classify([data / name for name in names], CLASSES)
    wrong = {name: one for name, one in zip(names, answers, strict=True) if one.label != name.split("/")[0]}
    assert 3 < len(wrong) < COUNT
    assert less.metrics["acc1"] == pytest.approx(1 - len(wrong) / COUNT)
    assert less.agreement is not None
    assert less.agreement.reference == "onnxruntime fp32"
    assert less.agreement.same_answer == pytest.approx(1 - len(wrong) / COUNT)
    assert less.agreement.only_reference == pytest.approx(len(wrong) / COUNT)
    assert 0 < less.agreement.cosine_least < less.agreement.cosine_mean < 1
    assert {drop.name for drop in less.drops} == set(wrong)
    for drop in less.drops:
        assert drop.words == (drop.name.split("/")[0], drop.name.split("/")[0], wrong[drop.name].label)
        assert drop.chances is not None and drop.chances[1] == pytest.approx(wrong[drop.name].probability, abs=1e-5)
    assert (result.classes, result.count, result.layout) == (tuple(sorted(CLASSES)), COUNT, "folders")
    assert sum(result.class_counts) == COUNT
    assert sum(one.count for one in less.confusions) == len(wrong)
    assert "text encoder: fp32, since there is no fp16 graph" in less.reason


def test_templates_are_averaged_as_a_clip_does(evaluate: Evaluate, bundle: Path, data: Path) -> None:
    result = evaluate(templates=("openai", "a {}"), precisions=("fp32",))
    assert len(result.templates) == 81
    with load(bundle, backend="onnxruntime") as clip:
        answers = clip.classify([data / name for name in files_in(data)], result.classes, template=result.templates)
    right = [one.label == name.split("/")[0] for one, name in zip(answers, files_in(data), strict=True)]
    assert result.pairs[0].metrics["acc1"] == pytest.approx(np.mean(right))
    assert not all(right)


def test_every_backend_and_precision_takes_its_turn(evaluate: Evaluate) -> None:
    pytest.importorskip("openvino")
    result = evaluate(backends=("all",), limit=12)
    names = [pair.name for pair in result.pairs]
    assert names[0] == "onnxruntime fp32"
    assert {"onnxruntime fp16", "openvino fp32", "openvino fp16"} <= set(names)
    assert result.count == 12
    assert any("12 of 90 pictures" in note for note in result.notes)


def test_fp32_comes_along_to_compare_with(evaluate: Evaluate) -> None:
    result = evaluate(precisions=("fp16",))
    assert [pair.name for pair in result.pairs] == ["onnxruntime fp32", "onnxruntime fp16"]
    assert "fp32 was evaluated too, to compare with" in result.notes


def test_what_is_named_must_run(evaluate: Evaluate) -> None:
    with pytest.raises(InputError, match="int8"):
        evaluate(precisions=("int8",))
    with pytest.raises(InputError, match="unknown backend 'onyx'"):
        evaluate(backends=("onyx",))
    with pytest.raises(InputError, match="auto chooses one"):
        evaluate(backends=("auto",))
    with pytest.raises(InputError, match="auto chooses one"):
        evaluate(precisions=("auto",))


def test_what_fails_when_loaded_is_told_or_raised(evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_or_fail(bundle: Bundle, **asked: Any) -> Any:
        if asked["precision"] is Precision.FP16:
            raise BackendError("it drifts past its gates; see verify")
        return load(bundle, **asked)

    monkeypatch.setattr("clipdeploy.evaluate.job.load", load_or_fail)
    result = evaluate()
    assert [pair.name for pair in result.pairs] == ["onnxruntime fp32"]
    assert result.absent == {"onnxruntime fp16": "it drifts past its gates"}
    with pytest.raises(BackendError, match="drifts"):
        evaluate(precisions=("fp16",))


def test_broken_pictures_are_left_out_and_told(evaluate: Evaluate, data: Path, tmp_path: Path) -> None:
    for name in files_in(data)[:9]:
        (tmp_path / "some" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "some" / name).write_bytes((data / name).read_bytes())
    (tmp_path / "some/dog").mkdir(exist_ok=True)
    (tmp_path / "some/dog/aaa.jpg").write_bytes(b"no picture")
    result = evaluate(data=tmp_path / "some", precisions=("fp32",))
    assert list(result.skipped) == ["dog/aaa.jpg"]
    assert (result.count, result.pairs[0].metrics["acc1"]) == (9, 1.0)
    for path in (tmp_path / "some").rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(ImageError):
        evaluate(data=tmp_path / "some")


def test_groups(evaluate: Evaluate, data: Path, tmp_path: Path) -> None:
    with (tmp_path / "groups.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("picture", "group"))
        rows.writerows((name, f"group {int(Path(name).stem) % 2}") for name in files_in(data))
    reference, less = evaluate(groups=tmp_path / "groups.csv").pairs
    assert [(group.group, group.count) for group in reference.groups] == [("group 0", 45), ("group 1", 45)]
    assert all(group.metrics["acc1"] == 1.0 for group in reference.groups)
    assert np.mean([group.metrics["acc1"] for group in less.groups]) == pytest.approx(less.metrics["acc1"])
    assert reference.gap is None and less.gap is not None
    assert (less.gap.reference_gap, less.gap.metric) == (0.0, "acc1")
    assert less.gap.interval[0] <= less.gap.widened_by <= less.gap.interval[1]


def test_captions_that_are_the_pictures_own(bundle: Path, data: Path, tmp_path: Path) -> None:
    """Of eight pictures each is among the first ten."""
    (tmp_path / "images").symlink_to(data)
    with (tmp_path / "captions.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("image", "caption"))
        rows.writerows((name, f"{word} number {name}") for name in files_in(data)[:8] for word in ("a", "the"))
    result = evaluate_bundle(EvaluateRequest(bundle, tmp_path / "captions.csv", backends=ORT))
    assert (result.task, result.count, result.captions) == ("zeroshot_retrieval", 8, 16)
    reference, less = result.pairs
    assert reference.metrics["image_retrieval_recall@10"] == 1.0
    assert 0 < reference.metrics["text_retrieval_recall@5"] < 1
    assert less.agreement is not None
    with load(bundle, backend="onnxruntime") as clip:
        pictures = clip.encode_image([data / name for name in files_in(data)[:8]])
        texts = clip.encode_text([f"{word} number {name}" for name in files_in(data)[:8] for word in ("a", "the")])
    scores = pictures @ texts.T
    found = scores.argmax(axis=1) // 2 == np.arange(8)
    assert reference.metrics["text_retrieval_recall@1"] == pytest.approx(found.mean())
    assert reference.metrics["image_retrieval_recall@1"] == pytest.approx(
        np.mean(scores.argmax(axis=0) == np.arange(16) // 2)
    )


def test_a_bank_stands_for_the_text_encoder(bundle: Path, data: Path, evaluate: Evaluate, tmp_path: Path) -> None:
    make_bundle(tmp_path / "whole")
    bank_labels(BankRequest(tmp_path / "whole", CLASSES))
    pack_bundle(PackRequest(tmp_path / "whole", tmp_path / "device", towers=(Tower.IMAGE,)))
    result = evaluate(bundle=tmp_path / "device")
    assert result.pairs[0].metrics == evaluate(precisions=("fp32",)).pairs[0].metrics
    assert "bank" in result.pairs[0].reason
    with pytest.raises(TextError, match="no text encoder"):
        evaluate(bundle=tmp_path / "device", templates=("a drawing of a {}",))


def test_a_text_encoder_answers_for_itself(evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bank's rows may be of another precision."""
    monkeypatch.setattr("clipdeploy.runtime.clip.Clip.encode_labels", lambda *_, **__: pytest.fail("a bank was asked"))
    assert evaluate().pairs[0].metrics["acc1"] == 1.0


def test_outputs(evaluate: Evaluate, tmp_path: Path) -> None:
    result = evaluate(output=tmp_path / "out", html=tmp_path / "page.html")
    assert len(list((tmp_path / "out").glob("*.json"))) == len(result.pairs) == 2
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == min(12, len(result.pairs[1].drops))
    row = json.loads(next((tmp_path / "out").glob("*fp16*")).read_text(encoding="utf-8"))
    assert row["metrics"] == result.pairs[1].metrics


def test_an_output_that_cannot_be_written_ends_it_before_the_work(evaluate: Evaluate, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        evaluate(html=tmp_path / "no" / "page.html", data=tmp_path / "nothing")


def test_limits(evaluate: Evaluate) -> None:
    assert evaluate(at_least=(("acc1", 0.1),), max_drop=1.0).misses == ()
    (miss,) = evaluate(max_drop=0.0).misses
    assert miss.startswith("onnxruntime fp16: acc1 is ") and "below onnxruntime fp32" in miss
    with pytest.raises(InputError, match="no metric 'acc9'"):
        evaluate(at_least=(("acc9", 0.1),))


def test_the_demo_beside_pytorch(demo_bundle: Path, tmp_path: Path) -> None:
    """The checkpoint's own transform, tokenizer and encoders give the same answers."""
    from clipdeploy.demo import model_path, write_images
    from clipdeploy.request import CheckpointRequest

    folder = write_images(tmp_path / "held", count=24, seed=2).folder
    checkpoint = CheckpointRequest(f"local-dir:{model_path()}")
    request = EvaluateRequest(demo_bundle, folder, ORT, checkpoint=checkpoint)
    result = evaluate_bundle(request)
    reference, ours = result.pairs
    assert (reference.name, ours.name) == ("PyTorch fp32", "onnxruntime fp32")
    assert reference.metrics == ours.metrics
    assert reference.metrics["acc1"] > 0.8
    assert ours.agreement is not None
    assert (ours.agreement.same_answer, ours.agreement.reference) == (1.0, "PyTorch fp32")
    assert ours.agreement.cosine_least > 0.99999
    other = evaluate_bundle(replace(request, checkpoint=CheckpointRequest(f"local-dir:{model_path('vit')}"), limit=4))
    assert any("other weights" in note for note in other.notes)
