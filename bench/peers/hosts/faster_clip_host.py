"""faster-clip, as its page on PyPI shows it: bytes of image files in, lists of numbers out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from frame import in_batches, serve


class FasterClip:
    """Takes its weights from $FASTER_CLIP_CACHE."""

    def __init__(self, checkpoint: Path, threads: int) -> None:
        from faster_clip import ClipModel

        self.model = ClipModel()

    def mode(self) -> Any:
        return self

    def files(self, paths: list[str], batch: int) -> Any:
        rows: list[Any] = []
        for names in in_batches(paths, batch):
            rows += self.model.encode_image([Path(name).read_bytes() for name in names])
        return rows

    def file(self, path: str) -> Any:
        return self.model.encode_image([Path(path).read_bytes()])

    def texts(self, texts: list[str], batch: int) -> Any:
        return self.model.encode_text(texts)


if __name__ == "__main__":
    serve(FasterClip)
