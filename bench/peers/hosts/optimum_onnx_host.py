"""optimum-onnx: the model that its zero-shot classification runs, exported by itself at the first use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from frame import in_batches, serve, threads_of_torch


class OptimumOnnx:
    """Its graph holds both encoders: with pictures goes one short text, with texts one picture."""

    def __init__(self, checkpoint: Path, threads: int) -> None:
        import onnxruntime
        import torch
        from optimum.onnxruntime import ORTModelForZeroShotImageClassification
        from transformers import AutoProcessor

        threads_of_torch(threads)
        exported = checkpoint.parent / "exported-by-optimum-onnx"
        if not exported.is_dir():
            ORTModelForZeroShotImageClassification.from_pretrained(checkpoint, export=True).save_pretrained(exported)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.model = ORTModelForZeroShotImageClassification.from_pretrained(exported, session_options=options)
        self.processor = AutoProcessor.from_pretrained(checkpoint, use_fast=True)
        self.torch = torch
        self.text = self.processor(text=["a"], return_tensors="pt")
        self.pixels = torch.zeros(1, 3, 224, 224)

    def mode(self) -> Any:
        return self

    def files(self, paths: list[str], batch: int) -> Any:
        rows: list[Any] = []
        for names in in_batches(paths, batch):
            rows += self._images(names)
        return rows

    def file(self, path: str) -> Any:
        return self._images([path])

    def _images(self, names: list[str]) -> Any:
        from PIL import Image

        inputs = self.processor(images=[Image.open(name) for name in names], return_tensors="pt")
        return list(self.model(**self.text, pixel_values=inputs["pixel_values"]).image_embeds.numpy())

    def texts(self, texts: list[str], batch: int) -> Any:
        rows: list[Any] = []
        for some in in_batches(texts, batch):
            inputs = self.processor(text=some, padding=True, truncation=True, return_tensors="pt")
            rows += list(self.model(**inputs, pixel_values=self.pixels).text_embeds.numpy())
        return rows


if __name__ == "__main__":
    serve(OptimumOnnx)
