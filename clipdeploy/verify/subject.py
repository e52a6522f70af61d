"""What is verified, and what a rung of the ladder measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clipdeploy.runtime.selftest.gates import Gates
from clipdeploy.runtime.selftest.golden_frames import has_answers
from clipdeploy.runtime.selftest.measure import Floats
from clipdeploy.runtime.selftest.recorded import Recorded
from clipdeploy.spec import Tower
from clipdeploy.verify.measure import run_batches
from clipdeploy.verify.records import Check, Finding, Sample, StageName
from clipdeploy.verify.reference import Reference

if TYPE_CHECKING:
    from clipdeploy.runtime.clip import Clip

TOWERS: dict[StageName, Tower] = {"image_tower": Tower.IMAGE, "text_tower": Tower.TEXT}
"""The encoder that a stage runs alone."""
_NO_ANSWERS = "the bundle holds no answers to camera frames that an engine could be held to, and none was verified"


@dataclass(frozen=True)
class Outcome:
    """What a stage measured, before it is timed."""

    checks: tuple[Check, ...]
    samples: tuple[Sample, ...]
    finding: Finding | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Subject:
    """What is verified, against what, within which gates."""

    clip: Clip
    reference: Reference
    gates: Gates
    versions: dict[str, str]
    same_weights: bool | None
    tower_gates: Mapping[Tower, Gates] = field(default_factory=dict)
    recorded: Mapping[Tower, Recorded] = field(default_factory=dict)

    @cached_property
    def absent(self) -> dict[Tower, str]:
        """The encoders that do not run here, each with what it has not."""
        unbuilt = dict.fromkeys(self.clip.unbuilt, "no engine")
        return unbuilt | {tower: "no graph in the bundle" for tower in Tower if tower not in self.clip.precisions}

    def unverified(self, name: StageName) -> str:
        """Why there is nothing to verify in a stage; empty where there is."""
        if name == "tokens" and Tower.TEXT not in self.clip.precisions:
            return "the bundle has no text encoder, and its tokenizer was not verified"
        if name == "frames" and self.clip.chosen.engines is not None:
            return "" if any(has_answers(self.clip.bundle, f) for f in self.clip.frames) else _NO_ANSWERS
        tower = TOWERS.get(name)
        if tower not in self.absent:
            return ""
        told = f"the {tower.value} encoder has {self.absent[tower]} and was not verified"
        return f"{told}; {self.clip.unbuilt[tower]}" if tower in self.clip.unbuilt else told

    @cached_property
    def crops(self) -> list[NDArray[np.uint8]]:
        """Our own crop of every picture."""
        return [np.asarray(self.clip.images.crop(picture.path)) for picture in self.reference.pictures]

    @cached_property
    def tokens(self) -> NDArray[np.int64]:
        """Our own token ids of all texts."""
        return np.asarray(self.clip.tokenizer(list(self.reference.texts)))

    @cached_property
    def cosines(self) -> Floats:
        """(K, T) end to end: our crops, pixels, tokens and towers; of a tower that does not run the reference's."""
        k, t, dim = len(self.reference.pictures), len(self.reference.texts), self.clip.spec.embed_dim
        images, texts = self.reference.image_embeds, self.reference.text_embeds
        if Tower.IMAGE not in self.absent:
            pixels = self.clip.images.normalize(np.stack(self.crops))
            images = run_batches(self.clip.encode_pixels, pixels, (k, dim))
        if Tower.TEXT not in self.absent:
            texts = run_batches(self.clip.encode_tokens, self.tokens, (t, dim))
        return np.asarray(images.astype(np.float64) @ texts.astype(np.float64).T)

    @property
    def half(self) -> tuple[str, ...]:
        """A note where one side of the cosines is not ours."""
        return tuple(
            f"the {tower.value} embeddings are the reference's: the {tower.value} encoder has {lacking}"
            for tower, lacking in self.absent.items()
        )

    @cached_property
    def reference_cosines(self) -> Floats:
        """(K, T) of the reference."""
        images, texts = self.reference.image_embeds, self.reference.text_embeds
        return np.asarray(images.astype(np.float64) @ texts.astype(np.float64).T)


def short(name: str) -> str:
    """A sample's name in a sentence."""
    return repr(name if len(name) <= 40 else name[:39] + "…")


def say(value: float) -> str:
    """A number in a sentence."""
    return f"{value:.3g}" if np.isfinite(value) else "not finite"
