"""sentence-transformers, as its documentation of image search shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from frame import serve, threads_of_torch


class SentenceTransformers:
    def __init__(self, checkpoint: Path, threads: int) -> None:
        from sentence_transformers import SentenceTransformer

        threads_of_torch(threads)
        self.model = SentenceTransformer(str(checkpoint / "sentence-transformers__clip-ViT-B-32"), device="cpu")

    def mode(self) -> Any:
        return self

    def files(self, paths: list[str], batch: int) -> Any:
        from PIL import Image

        return list(
            self.model.encode(
                [Image.open(path) for path in paths],
                batch_size=batch,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
        )

    def file(self, path: str) -> Any:
        return self.files([path], 1)

    def texts(self, texts: list[str], batch: int) -> Any:
        return list(self.model.encode(texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False))


if __name__ == "__main__":
    serve(SentenceTransformers)
