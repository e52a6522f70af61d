"""clipdeploy, as its README and docs/runtime.md show it: loaded for what a run usually holds, a folder or a picture."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from frame import serve


class Clipdeploy:
    """One bundle; a mode is a backend and a precision."""

    def __init__(self, checkpoint: Path, threads: int) -> None:
        import clipdeploy

        self.load, self.checkpoint, self.threads = clipdeploy.load, checkpoint, threads

    def mode(self, backend: str, precision: str) -> Any:
        return Mode(partial(self.load, self.checkpoint, backend=backend, precision=precision, threads=self.threads))


class Mode:
    def __init__(self, load: Any) -> None:
        self.clip_for = lru_cache(lambda batch: load(usual_batch=batch))

    def files(self, paths: list[str], batch: int) -> Any:
        return self.clip_for(batch).encode_image(paths, batch_size=batch)

    def file(self, path: str) -> Any:
        return self.clip_for(1).encode_image(path)

    def texts(self, texts: list[str], batch: int) -> Any:
        return self.clip_for(batch).encode_text(texts, batch_size=batch)


if __name__ == "__main__":
    serve(Clipdeploy)
