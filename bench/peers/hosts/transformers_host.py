"""Hugging Face transformers: CLIPModel and its processor, as its documentation shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from frame import in_batches, serve, threads_of_torch


class Transformers:
    def __init__(self, checkpoint: Path, threads: int) -> None:
        import torch
        from transformers import AutoProcessor, CLIPModel

        threads_of_torch(threads)
        self.torch, self.checkpoint, self.model_of = torch, checkpoint, CLIPModel.from_pretrained
        self.processor = AutoProcessor.from_pretrained(checkpoint)

    def mode(self, dtype: str = "float32") -> Any:
        return Mode(self, self.model_of(self.checkpoint, dtype=getattr(self.torch, dtype)).eval())


class Mode:
    def __init__(self, peer: Transformers, model: Any) -> None:
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
        return self._run(self.model.get_image_features, inputs.to(self.model.dtype))

    def texts(self, texts: list[str], batch: int) -> Any:
        rows: list[Any] = []
        for some in in_batches(texts, batch):
            inputs = self.peer.processor(text=some, padding=True, truncation=True, return_tensors="pt")
            rows += self._run(self.model.get_text_features, inputs)
        return rows

    def _run(self, encode: Any, inputs: Any) -> Any:
        with self.peer.torch.no_grad():
            embeds = encode(**inputs)
            embeds = getattr(embeds, "pooler_output", embeds)
            return list((embeds / embeds.norm(p=2, dim=-1, keepdim=True)).float().numpy())


if __name__ == "__main__":
    serve(Transformers)
