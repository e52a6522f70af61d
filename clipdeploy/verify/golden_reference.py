"""The golden samples of a bundle as what the ladder compares with."""

from __future__ import annotations

from collections.abc import Mapping

from clipdeploy.bundle import Bundle
from clipdeploy.verify.golden import read_golden
from clipdeploy.verify.records import ReferenceKind
from clipdeploy.verify.reference import check_enough


class GoldenReference:
    """The golden samples of a bundle; needs no PyTorch. Raises BundleCorruptError where they are not intact."""

    kind: ReferenceKind = "golden"

    def __init__(self, bundle: Bundle) -> None:
        golden = read_golden(bundle)
        check_enough(golden.pictures, golden.texts)
        self.pictures = golden.pictures
        self.texts = golden.texts
        self.tools: Mapping[str, str] = golden.tools
        self.weights_sha256: str | None = None
        self.crops = golden.crops
        self.pixels = golden.pixels
        self.tokens = golden.input_ids
        self.image_embeds = golden.image_embeds
        self.text_embeds = golden.text_embeds

    def settle(self) -> None:
        """The arrays are there."""
