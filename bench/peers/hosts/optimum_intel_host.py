"""optimum-intel: the model that its zero-shot classification runs on OpenVINO, exported by itself at the first use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from frame import in_batches, serve, threads_of_torch


class OptimumIntel:
    """Its graph holds both encoders: with pictures goes one short text, with texts one picture."""

    def __init__(self, checkpoint: Path, threads: int) -> None:
        import torch
        from optimum.intel import OVModelForZeroShotImageClassification
        from transformers import AutoProcessor

        threads_of_torch(threads)
        self.exported = checkpoint.parent / "exported-by-optimum-intel"
        self.model_of, self.threads = OVModelForZeroShotImageClassification.from_pretrained, threads
        if not self.exported.is_dir():
            self.model_of(checkpoint, export=True, compile=False).save_pretrained(self.exported)
        self.processor = AutoProcessor.from_pretrained(checkpoint, use_fast=True)
        self.text = self.processor(text=["a"], return_tensors="pt")
        self.pixels = torch.zeros(1, 3, 224, 224)

    def mode(self, hint: str | None = None) -> Any:
        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": str(self.threads)}
        if hint is not None:
            config["INFERENCE_PRECISION_HINT"] = hint
        return Mode(self, self.model_of(self.exported, ov_config=config))


class Mode:
    def __init__(self, peer: OptimumIntel, model: Any) -> None:
        self.peer, self.model = peer, model

    def files(self, paths: list[str], batch: int) -> Any:
        rows: list[Any] = []
        for names in in_batches(paths, batch):
            rows += self._images(names)
        return rows

    def file(self, path: str) -> Any:
        return self._images([path])

    def _images(self, names: list[str]) -> Any:
        from PIL import Image

        inputs = self.peer.processor(images=[Image.open(name) for name in names], return_tensors="pt")
        return list(self.model(**self.peer.text, pixel_values=inputs["pixel_values"]).image_embeds.numpy())

    def texts(self, texts: list[str], batch: int) -> Any:
        rows: list[Any] = []
        for some in in_batches(texts, batch):
            inputs = self.peer.processor(text=some, padding=True, truncation=True, return_tensors="pt")
            rows += list(self.model(**inputs, pixel_values=self.peer.pixels).text_embeds.numpy())
        return rows


if __name__ == "__main__":
    serve(OptimumIntel)
