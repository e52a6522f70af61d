"""fastembed, as its documentation shows it; the models from a folder in place of a download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from frame import serve


class FastEmbed:
    def __init__(self, checkpoint: Path, threads: int) -> None:
        from fastembed import ImageEmbedding

        folder = checkpoint / "any_length"
        self.folder, self.threads = folder, threads
        self.text_model: Any = None
        self.image = ImageEmbedding(
            "Qdrant/clip-ViT-B-32-vision", threads=threads, specific_model_path=str(folder / "vision")
        )

    def mode(self) -> Any:
        return self

    def files(self, paths: list[str], batch: int) -> Any:
        return list(self.image.embed(paths, batch_size=batch))

    def file(self, path: str) -> Any:
        return list(self.image.embed([path]))

    def texts(self, texts: list[str], batch: int) -> Any:
        from fastembed import TextEmbedding

        if self.text_model is None:
            self.text_model = TextEmbedding(
                "Qdrant/clip-ViT-B-32-text", threads=self.threads, specific_model_path=str(self.folder / "text")
            )
        return list(self.text_model.embed(texts, batch_size=batch))


if __name__ == "__main__":
    serve(FastEmbed)
