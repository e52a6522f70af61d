"""Tiny genuine checkpoints, and ways to break one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from clipdeploy.findings import Finding

if TYPE_CHECKING:
    from clipdeploy.export.checkpoint import Checkpoint

SIGLIP_PICTURES = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
MOBILE_PICTURES = {"mean": [0.0] * 3, "std": [1.0] * 3, "interpolation": "bilinear", "resize_mode": "shortest"}

Make = Callable[..., "Checkpoint"]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write a tiny open_clip checkpoint and load it as the export does."""
    pytest.importorskip("open_clip", reason="checkpoints need the extra: pip install 'clipdeploy[export]'")
    from tests import checkpoints

    def build(config: Mapping[str, Any] | None = None, **given: Any) -> Checkpoint:
        folder = checkpoints.write_checkpoint(tmp_path / "checkpoint", config, **given)
        return checkpoints.load(f"local-dir:{folder}")

    return build


@pytest.fixture
def siglip(make: Make) -> Checkpoint:
    """A checkpoint such as SigLIP's: no mask, read at the last place, a sigmoid."""
    from tests.checkpoints import model_config

    text = {"no_causal_mask": True, "pool_type": "last", "proj_bias": True}
    config = model_config(text_cfg=text, custom_text=True, init_logit_bias=-10.0)
    return make(config, preprocess=SIGLIP_PICTURES)


@pytest.fixture
def mobile(make: Make, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """A checkpoint such as MobileCLIP-S1's: an image tower of several branches, a text tower without mask."""
    import timm

    from tests.checkpoints import model_config

    create = timm.create_model
    sizes = {"layers": (1, 1, 1, 1), "embed_dims": (16, 32, 64, 64)}
    monkeypatch.setattr(timm, "create_model", lambda name, **given: create(name, **{**given, **sizes}))
    config = model_config(text_cfg={"no_causal_mask": True}, custom_text=True)
    config["vision_cfg"] = {"timm_model_name": "fastvit_mci0", "timm_pool": "avg", "timm_proj": "", "image_size": 64}
    return make(config, preprocess=MOBILE_PICTURES)


def look(checkpoint: Checkpoint) -> dict[str, Finding]:
    """What preflight finds, by the name of the check."""
    from clipdeploy.export.preflight.run import preflight

    return {finding.check: finding for finding in preflight(checkpoint)}


def find(checkpoint: Checkpoint, check: str, state: str | None = None) -> Finding:
    """What one check finds; it must be of `state`, where one is given."""
    from clipdeploy.export.preflight.probe import Probe
    from clipdeploy.export.preflight.run import CHECKS

    finding = CHECKS[check](Probe(checkpoint))
    assert finding.check == check
    assert state is None or finding.state == state, finding
    return finding


def bad(checkpoint: Checkpoint) -> dict[str, Finding]:
    """What preflight finds bad."""
    return {name: finding for name, finding in look(checkpoint).items() if finding.state == "bad"}


def stating(checkpoint: Checkpoint, *, pixels: Any = None, tokens: Any = None, **model: Any) -> Checkpoint:
    """The same checkpoint, described otherwise."""
    spec = replace(checkpoint.spec, **model)
    spec = replace(spec, pixels=replace(spec.pixels, **(pixels or {})), tokens=replace(spec.tokens, **(tokens or {})))
    return replace(checkpoint, spec=spec)
