"""OpenAI's own CLIP package, as its README shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from frame import in_batches, serve, threads_of_torch


class OpenAi:
    def __init__(self, checkpoint: Path, threads: int) -> None:
        import clip
        import torch

        threads_of_torch(threads)
        self.clip, self.torch = clip, torch
        self.model, self.preprocess = clip.load(str(checkpoint / "checkpoint.pt"), device="cpu")

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

        return self._run(
            self.model.encode_image, self.torch.stack([self.preprocess(Image.open(name)) for name in names])
        )

    def texts(self, texts: list[str], batch: int) -> Any:
        rows: list[Any] = []
        for some in in_batches(texts, batch):
            rows += self._run(self.model.encode_text, self.clip.tokenize(some))
        return rows

    def _run(self, encode: Any, given: Any) -> Any:
        with self.torch.no_grad():
            embeds = encode(given)
            return list((embeds / embeds.norm(dim=-1, keepdim=True)).numpy())


if __name__ == "__main__":
    serve(OpenAi)
