"""The two demo models in open_clip's own words, and how each is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# the statistics of OpenAI's CLIP preprocessing, so that a demo bundle takes the path a real one takes
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 3}
TRAINED_POSITIONS = 32  # captions are shorter than this; later positions stay zero


@dataclass(frozen=True, slots=True)
class Recipe:
    """One variant. `batch` pictures a step; `rate` is AdamW's highest learning rate."""

    variant: str
    vision: dict[str, Any]
    batch: int
    rate: float
    weight_decay: float

    @property
    def name(self) -> str:
        """The model's folder name."""
        return f"clipdeploy-demo-{self.variant}"

    def model_config(self) -> dict[str, Any]:
        """What open_clip builds the network from: GELU, never QuickGELU."""
        return {
            "embed_dim": 128,
            "quick_gelu": False,
            "vision_cfg": dict(self.vision),
            "text_cfg": dict(TEXT),
        }

    def preprocess_config(self) -> dict[str, Any]:
        """open_clip's `preprocess_cfg`."""
        return {
            "size": [self.vision["image_size"], self.vision["image_size"]],
            "mode": "RGB",
            "mean": list(PIXEL_MEAN),
            "std": list(PIXEL_STD),
            "interpolation": "bicubic",
            "resize_mode": "shortest",
            "fill_color": 0,
        }


RECIPES = {
    "rn": Recipe(
        variant="rn",
        vision={"image_size": 64, "layers": [2, 2, 2, 2], "width": 16, "patch_size": None},
        batch=128,
        rate=2e-3,
        weight_decay=0.05,
    ),
    "vit": Recipe(
        variant="vit",
        vision={"image_size": 64, "layers": 4, "width": 128, "head_width": 64, "patch_size": 8},
        batch=128,
        rate=1e-3,
        weight_decay=0.05,
    ),
}
