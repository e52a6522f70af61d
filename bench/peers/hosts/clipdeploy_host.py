"""clipdeploy, as its README shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from frame import serve


class Clipdeploy:
    """One bundle; a mode is a backend and a precision."""

    def __init__(self, checkpoint: Path, threads: int) -> None:
        import clipdeploy

        self.load, self.checkpoint, self.threads = clipdeploy.load, checkpoint, threads

    def mode(self, backend: str, precision: str) -> Any:
        return Mode(self.load(self.checkpoint, backend=backend, precision=precision, threads=self.threads))


class Mode:
    def __init__(self, clip: Any) -> None:
        self.clip = clip

    def files(self, paths: list[str], batch: int) -> Any:
        return self.clip.encode_image(paths, batch_size=batch)

    def file(self, path: str) -> Any:
        return self.clip.encode_image(path)

    def texts(self, texts: list[str], batch: int) -> Any:
        return self.clip.encode_text(texts, batch_size=batch)


if __name__ == "__main__":
    serve(Clipdeploy)
