"""Nothing is found where nothing is wrong, in every family, trained or not."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("open_clip", reason="checkpoints need the extra: pip install 'clipdeploy[export]'")

from clipdeploy.errors import CheckpointError
from clipdeploy.export.preflight.run import CHECKS, preflight, require
from clipdeploy.findings import Finding
from tests import checkpoints
from tests.export.preflight.conftest import Make, find, look


def states(checkpoint: Any) -> dict[str, str]:
    return {finding.check: finding.state for finding in look(checkpoint).values() if finding.state != "good"}


CONFIGS: dict[str, dict[str, Any]] = {
    "vit": {},
    "quickgelu": {"quick_gelu": True},
    "resnet": {"vision": "resnet"},
    "coca": {"text_cfg": {"embed_cls": True}, "custom_text": True},
    "first end token": {"text_cfg": {"pool_type": "eos", "eos_id": 49407}, "custom_text": True},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_clean_checkpoints(make: Make, name: str) -> None:
    checkpoint = make(checkpoints.model_config(**CONFIGS[name]))
    findings = preflight(checkpoint)
    assert [finding.check for finding in findings] == list(CHECKS)
    assert not states(checkpoint)


def test_a_clean_siglip(siglip: Any) -> None:
    assert not states(siglip)
    assert "all runtimes must pad to 20 with id 0" in find(siglip, "padding").message


def test_a_clean_mobileclip(mobile: Any) -> None:
    assert not states(mobile)
    assert "the export fuses each" in find(mobile, "branches").message
    assert "none, as stated" in find(mobile, "causal mask").message


def test_a_shipped_checkpoint() -> None:
    from clipdeploy.demo import model_path

    assert not states(checkpoints.load(f"local-dir:{model_path()}"))


@pytest.mark.parametrize("vision", ["vit", "resnet"])
def test_random_weights_are_not_judged_by_their_values(monkeypatch: pytest.MonkeyPatch, vision: str) -> None:
    checkpoints.register(monkeypatch, "tiny", checkpoints.model_config(vision))
    checkpoint = checkpoints.load("tiny", random_weights=True)
    assert states(checkpoint) == {"weights": "note"}
    assert "--pretrained" in str(find(checkpoint, "weights").fix)


def test_progress_reaches_its_end(make: Make) -> None:
    seen: list[tuple[str, int, int]] = []
    preflight(make(), progress=lambda *told: seen.append(told))
    assert seen[-1] == ("preflight", len(CHECKS), len(CHECKS))


def test_all_that_is_bad_is_named_at_once() -> None:
    findings = [
        Finding("one", "good", "fine"),
        Finding("two", "bad", "wrong", "mend it"),
        Finding("three", "note", "odd", "look"),
        Finding("four", "bad", "worse", "mend it"),
    ]
    with pytest.raises(CheckpointError) as caught:
        require(findings, label="mine")
    assert caught.value.message == "mine: two: wrong; four: worse"
    assert caught.value.fix == "mend it"
    require(findings[:1], label="mine")
