"""clip_cpp, the Python bindings of clip.cpp, as their page on PyPI shows them: one file, one text at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from frame import serve


class ClipCpp:
    def __init__(self, checkpoint: Path, threads: int) -> None:
        from clip_cpp import Clip

        self.load, self.checkpoint, self.threads = Clip, checkpoint, threads

    def mode(self, file: str) -> Any:
        return Mode(self.load(str(self.checkpoint / f"{file}.gguf"), verbosity=0), self.threads)


class Mode:
    def __init__(self, model: Any, threads: int) -> None:
        self.model, self.threads = model, threads

    def files(self, paths: list[str], batch: int) -> Any:
        return [self.model.load_preprocess_encode_image(path, self.threads) for path in paths]

    def file(self, path: str) -> Any:
        return self.files([path], 1)

    def texts(self, texts: list[str], batch: int) -> Any:
        return [self.model.encode_text(self.model.tokenize(text), self.threads) for text in texts]


if __name__ == "__main__":
    serve(ClipCpp)
