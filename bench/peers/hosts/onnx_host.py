"""ONNX Runtime and OpenVINO without anything around them: Pillow, numpy and tokenizers do the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from frame import in_batches, serve

SIDE, LENGTH = 224, 77
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Onnx:
    def __init__(self, checkpoint: Path, threads: int) -> None:
        import numpy
        from tokenizers import Tokenizer

        self.numpy, self.checkpoint, self.threads = numpy, checkpoint, threads
        self.mean, self.std = numpy.array(MEAN, numpy.float32), numpy.array(STD, numpy.float32)
        self.tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        self.tokenizer.enable_truncation(LENGTH)
        self.tokenizer.enable_padding(length=LENGTH, pad_id=0)

    def mode(self, engine: str, graph: str = "", hint: str | None = None) -> Any:
        prefix = f"{graph}_" if graph else ""
        make = self._session if engine == "onnxruntime" else self._compiled
        image, text = (make(self.checkpoint / f"{prefix}{tower}.onnx", hint) for tower in ("image", "text"))
        return Mode(self, image, text)

    def _session(self, path: Path, hint: str | None) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda given: session.run(None, {name: given})[0]

    def _compiled(self, path: Path, hint: str | None) -> Any:
        import openvino

        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": str(self.threads)}
        if hint is not None:
            config["INFERENCE_PRECISION_HINT"] = hint
        compiled = openvino.Core().compile_model(str(path), "CPU", config)
        return lambda given: compiled(given)[0].copy()


class Mode:
    def __init__(self, peer: Onnx, image: Any, text: Any) -> None:
        self.peer, self.image, self.text = peer, image, text

    def files(self, paths: list[str], batch: int) -> Any:
        rows: list[Any] = []
        for names in in_batches(paths, batch):
            rows += list(self.image(self.peer.numpy.stack([self._pixels(name) for name in names])))
        return rows

    def file(self, path: str) -> Any:
        return list(self.image(self._pixels(path)[None]))

    def texts(self, texts: list[str], batch: int) -> Any:
        rows: list[Any] = []
        for some in in_batches(texts, batch):
            ids = [encoding.ids for encoding in self.peer.tokenizer.encode_batch(some)]
            rows += list(self.text(self.peer.numpy.array(ids, self.peer.numpy.int64)))
        return rows

    def _pixels(self, path: str) -> Any:
        """(3, 224, 224) float32: the shorter side to 224 by Pillow's bicubic filter, the middle, normalised."""
        from PIL import Image

        numpy = self.peer.numpy
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        width, height = image.size
        scale = SIDE / min(width, height)
        image = image.resize((int(width * scale), int(height * scale)), Image.Resampling.BICUBIC)
        left, top = round((image.width - SIDE) / 2), round((image.height - SIDE) / 2)
        image = image.crop((left, top, left + SIDE, top + SIDE))
        pixels = numpy.asarray(image, numpy.float32) / 255
        return numpy.ascontiguousarray(((pixels - self.peer.mean) / self.peer.std).transpose(2, 0, 1))


if __name__ == "__main__":
    serve(Onnx)
