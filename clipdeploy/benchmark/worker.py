"""A candidate's process: one bundle with one backend in one precision, opened and timed as it is asked to.

Libraries are imported when they are asked for, since how long that takes is measured too.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipdeploy.benchmark.serving import Handler, memory, serve, timed

if TYPE_CHECKING:
    from clipdeploy.runtime.clip import Clip

COMMAND = (
    sys.executable,
    "-c",
    "import time; begun = time.perf_counter(); from clipdeploy.benchmark.worker import main; main(begun)",
)
"""What starts one; its first line looks at the clock, which this process and its parent share."""

_WARM_UP_S = 0.03
_MOST = 200
_TEXT = "a photo of a dog, number {}."
_LABELS = ("a dog", "a cat")


def main(begun: float) -> None:
    """Serve; `begun` is the clock at the first line of Python."""
    faulthandler.enable()  # where an engine breaks down, its last words say where
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches it too: its parent ends it
    serve(Worker(begun).handlers())


class Worker:
    """What answers, and what it has opened."""

    def __init__(self, begun: float) -> None:
        self._begun = begun
        self._clip: Clip | None = None
        self._usual_batch = 0

    def handlers(self) -> dict[str, Handler]:
        """Each by the name that it is asked by."""
        return {
            "cold_start": self.cold_start,
            "import_libraries": self.import_libraries,
            "open": self.open,
            "images": self.images,
            "texts": self.texts,
            "stages": self.stages,
            "file_to_label": self.file_to_label,
            "folder": self.folder,
            "memory": memory,
        }

    def import_libraries(self, backend: str) -> dict[str, int]:
        """Import the runtime and the backend's engine; this process, and its bytes then."""
        import_engine(backend)
        return {"pid": os.getpid(), **memory()}

    def cold_start(self, how: dict[str, Any], picture: str, *, images: bool, texts: bool) -> dict[str, float | None]:
        """All of a start, in a process that has done nothing yet: the clock after each step.

        Args:
            how: as for `open`.
            picture: file of the first and second picture.
            images, texts: whether there is such an encoder.
        """
        import_engine(how["backend"])
        imported = time.perf_counter()
        clip = load(**how)
        loaded = time.perf_counter()
        first_image = first_text = second_image = None
        if images:
            clip.encode_image(picture)
            first_image = time.perf_counter()
        if texts:
            clip.encode_labels(_LABELS[:1])
            first_text = time.perf_counter()
        answered = time.perf_counter()
        if images:
            clip.encode_image(picture)
            second_image = (time.perf_counter() - answered) * 1e3
        return {
            "begun": self._begun,
            "imported": imported,
            "loaded": loaded,
            "first_image": first_image,
            "first_text": first_text,
            "answered": answered,
            "second_image_ms": second_image,
        }

    def open(self, how: dict[str, Any], *, images: bool, texts: bool) -> dict[str, Any]:
        """Load the bundle and both encoders, prepared for a usual batch; what was open before is closed.

        The encoders are tested when they are loaded first.

        Args:
            how: `bundle`, `backend`, `precision`, `target`, `threads`, `usual_batch`.
            images, texts: which encoders to load.

        Returns:
            `reason` of the backend, and the bytes `loaded` once the image encoder has answered, or the text encoder
            where there is no other.
        """
        if self._clip is None or (how["usual_batch"] != self._usual_batch and _prepares(self._clip)):
            tested = self._clip is not None
            self._close()
            self._clip, self._usual_batch = load(**how, self_test=not tested), how["usual_batch"]
        clip = self._clip
        if images:
            clip.encode_pixels(_pixels(clip, self._usual_batch), batch_size=self._usual_batch)
            loaded = memory()["resident"]
        if texts:
            clip.encode_tokens(_tokens(clip, self._usual_batch), batch_size=self._usual_batch)
        return {"reason": clip.backend.reason, "loaded": loaded if images else memory()["resident"]}

    def images(self, batch: int, seconds: float) -> list[float]:
        """Calls of `encode_pixels` with one batch that is ready, in ms each."""
        clip = self._opened()
        pixels = _pixels(clip, batch)
        return _timed(lambda: clip.encode_pixels(pixels, batch_size=batch), seconds)

    def texts(self, batch: int, seconds: float) -> list[float]:
        """Calls of `encode_tokens` with one batch that is ready, in ms each."""
        clip = self._opened()
        tokens = _tokens(clip, batch)
        return _timed(lambda: clip.encode_tokens(tokens, batch_size=batch), seconds)

    def stages(self, pictures: list[str], seconds: float) -> dict[str, list[float]]:
        """The stages of one picture, each on its own: name -> calls in ms; `seconds` for all of them together."""
        from clipdeploy.benchmark.stages import time_stages

        return time_stages(self._opened(), [Path(picture) for picture in pictures], _timed_briefly, seconds)

    def file_to_label(self, pictures: list[str], seconds: float) -> list[float]:
        """Calls from a picture file to its labels, in ms each; pictures take turns."""
        from clipdeploy.benchmark.stages import each, file_to_label

        classify = file_to_label(self._opened())
        return _timed(each(classify, [Path(picture) for picture in pictures]), seconds)

    def folder(self, pictures: list[str], batch: int) -> float:
        """All of these files to embeddings, read ahead: pictures a second."""
        clip = self._opened()
        started = time.perf_counter()
        count = sum(1 for _ in clip.encode_many(map(Path, pictures), batch_size=batch))
        return count / (time.perf_counter() - started)

    def _opened(self) -> Clip:
        assert self._clip is not None, "open comes first"
        return self._clip

    def _close(self) -> None:
        if self._clip is not None:
            self._clip.close()
            self._clip = None


def load(
    bundle: str,
    backend: str,
    precision: str,
    target: Any,
    threads: int | None,
    usual_batch: int,
    *,
    self_test: bool = True,
) -> Clip:
    """The bundle as an app opens it, without hashing its files."""
    import clipdeploy

    return clipdeploy.load(
        bundle,
        backend=backend,
        precision=precision,
        target=target,
        threads=threads,
        usual_batch=usual_batch,
        check_hashes=False,
        self_test=self_test,
    )


def import_engine(backend: str) -> None:
    """Import the runtime, and the library that the backend stands on."""
    importlib.import_module("clipdeploy.runtime.clip")
    engine = backend.split(":", maxsplit=1)[0]
    if engine == "onnxruntime":
        from clipdeploy.runtime.providers import import_onnxruntime

        import_onnxruntime()
    elif engine == "openvino":
        from clipdeploy.runtime.ov.product import import_openvino

        import_openvino()
    else:
        from clipdeploy.runtime.backends import engine_backend
        from clipdeploy.runtime.trt.product import import_product

        product = engine_backend(engine)
        assert product is not None
        import_product(product)


def _prepares(clip: Clip) -> bool:
    """Whether the engine prepares for a usual batch: all but ONNX Runtime on the CPU, and engines that are built."""
    return clip.chosen.engines is None and clip.backend.name != "onnxruntime"


def _timed(call: Callable[[], object], seconds: float) -> list[float]:
    return timed(call, warm_up_s=min(_WARM_UP_S, seconds), seconds=seconds, fewest=1, most=_MOST)


def _timed_briefly(call: Callable[[], object], seconds: float) -> list[float]:
    """For stages, which have been gone through once before."""
    return timed(call, warm_up_s=0.0, seconds=seconds, fewest=2, most=_MOST)


def _pixels(clip: Clip, batch: int) -> Any:
    """(N, 3, H, W) float32 of noise: how long an encoder takes does not depend on what it sees."""
    import numpy as np

    shape = (batch, 3, clip.spec.pixels.height, clip.spec.pixels.width)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _tokens(clip: Clip, batch: int) -> Any:
    """(N, context_length) int64, of short sentences."""
    return clip.tokenizer([_TEXT.format(number) for number in range(batch)])
