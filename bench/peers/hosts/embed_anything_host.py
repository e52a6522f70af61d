"""embed-anything, as its documentation shows it; the model from the cache of the hub in place of a download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from frame import serve


class EmbedAnything:
    """Takes its model from $HF_HOME."""

    def __init__(self, checkpoint: Path, threads: int) -> None:
        import embed_anything

        self.library = embed_anything
        self.model = embed_anything.EmbeddingModel.from_pretrained_hf("openai/clip-vit-base-patch32")

    def mode(self) -> Any:
        return self

    def files(self, paths: list[str], batch: int) -> Any:
        return [self.library.embed_file(path, embedder=self.model)[0].embedding for path in paths]

    def file(self, path: str) -> Any:
        return self.files([path], 1)

    def texts(self, texts: list[str], batch: int) -> Any:
        config = self.library.TextEmbedConfig(batch_size=batch)
        return [one.embedding for one in self.library.embed_query(texts, embedder=self.model, config=config)]


if __name__ == "__main__":
    serve(EmbedAnything)
