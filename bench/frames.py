"""Frames in the graph beside Pillow and the tower: raw camera frames to embeddings, in one run.

    python -m bench.frames [BUNDLE] [--model ViT-B-32] [--frame 1920x1080:bgr ...] [--threads 2] [--rounds 7]

For each kind of frames and each engine three things take turns: a frame to pixels by Pillow (in one thread, as it
computes one picture) and by the frame graph, and the image encoder on pixels that are ready; then both ways whole. The
two ways must give the same embedding. Nv12 goes to Pillow through OpenCV where that is installed. Weights are random,
which changes no time. Two cores take some two minutes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import OUT, environment, in_rounds, parser_of, random_bundle, ratio, table, timing, write_json
from clipdeploy.bundle import Bundle
from clipdeploy.errors import ClipdeployError
from clipdeploy.frames.graph import frame_graph
from clipdeploy.runtime.backends import open_session
from clipdeploy.runtime.image import ImageProcessor
from clipdeploy.runtime.nv12 import nv12_to_rgb
from clipdeploy.runtime.selftest.frames import pixel_drift, synthetic_frames
from clipdeploy.runtime.session import Session
from clipdeploy.spec import FrameSpec, Precision, Tower

ENGINES = ("onnxruntime", "openvino")
FRAMES = ("1920x1080:bgr", "1920x1080:nv12", "1280x720:bgr", "1280x720:nv12")
PILLOW, GRAPH, TOWER = "Pillow", "frame graph", "tower"
BEFORE, INSIDE = "Pillow, then tower", "frame graph, then tower"
_SAME = 1e-4


def main() -> None:
    """Measure, print and write."""
    parser = parser_of("frames", __doc__)
    parser.add_argument("bundle", nargs="?", type=Path, help="bundle of --model; exported to out/bench when not given")
    parser.add_argument("--model", default="ViT-B-32", help="open_clip architecture")
    parser.add_argument("--frame", dest="frames", action="append", help="such as 1920x1080:bgr; repeatable")
    parser.add_argument("--threads", type=int, default=2, help="threads of each engine")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds")
    parser.add_argument("--calls", type=int, default=10, help="measured calls a round")
    parser.add_argument("--json", type=Path, default=OUT / "frames.json", help="result file")
    options = parser.parse_args()
    bundle = Bundle.open(random_bundle(options.model, options.bundle), check_hashes=False)
    frames = [FrameSpec.parse(frame) for frame in options.frames or FRAMES]
    record: dict[str, Any] = {
        "environment": environment(options.threads),
        "model": bundle.model.name,
        "rounds": options.rounds,
        "calls": options.calls,
        "engines": {},
        "absent": {},
    }
    for engine in ENGINES:
        try:
            tower = open_session(bundle.graph(Tower.IMAGE), backend=engine, threads=options.threads)
        except ClipdeployError as error:
            record["absent"][engine] = error.message
            continue
        rows = {}
        for frame in frames:
            print(f"{engine}, {frame}", flush=True)
            rows[str(frame)] = measured(bundle, frame, engine, tower, options)
        record["engines"][engine] = rows
        tower.close()
    write_json(options.json, record)
    print(f"\n{report(record)}\n\nwritten to {options.json}")


def measured(
    bundle: Bundle, frame: FrameSpec, engine: str, tower: Session, options: argparse.Namespace
) -> dict[str, Any]:
    """One kind of frames on one engine: times of the parts and of the whole, and how far the two ways are apart."""
    spec = bundle.model
    processor = ImageProcessor(spec.pixels, workers=1)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "frame.onnx"
        model = frame_graph(frame, spec.pixels, spec.image.input, opset=19, ir_version=9)
        path.write_bytes(model.SerializeToString())
        front = open_session(path, backend=engine, precision=Precision.FP32, threads=options.threads)
        frames = synthetic_frames(frame, 1)
        by_pillow = partial(pillow, processor, frame, converter(frame))
        pixels = by_pillow(frames)
        drift = pixel_drift(front.run(frames), pixels, spec.pixels)
        apart = float(np.abs(tower.run(front.run(frames)) - tower.run(pixels)).max())
        if not drift.passed or apart > _SAME:
            raise SystemExit(f"{engine}, {frame}: the two ways differ: {drift.told}; embeddings by {apart:.1e}")
        candidates: dict[str, Callable[[], object]] = {
            PILLOW: lambda: by_pillow(frames),
            GRAPH: lambda: front.run(frames),
            TOWER: lambda: tower.run(pixels),
            BEFORE: lambda: tower.run(by_pillow(frames)),
            INSIDE: lambda: tower.run(front.run(frames)),
        }
        samples = in_rounds(candidates, rounds=options.rounds, calls=options.calls)
        front.close()
        size = path.stat().st_size
    return {
        "ms": {name: asdict(timing([ms for one in taken for ms in one])) for name, taken in samples.items()},
        "pixels": asdict(ratio(samples[GRAPH], samples[PILLOW])),
        "whole": asdict(ratio(samples[INSIDE], samples[BEFORE])),
        "graph_bytes": size,
        "differing_share": drift.share,
        "embeddings_apart": apart,
    }


def pillow(
    processor: ImageProcessor, frame: FrameSpec, convert: Callable[[Any], Any], frames: np.ndarray
) -> np.ndarray:
    """What one does without a frame graph: (1, ...) uint8 to (1, 3, h, w) float32."""
    return processor([convert(frames[0])], color="bgr" if frame.color == "bgr" else "rgb")


def converter(frame: FrameSpec) -> Callable[[Any], Any]:
    """What makes a picture of a frame: OpenCV of nv12, where it is installed; nothing of others."""
    if frame.color != "nv12":
        return lambda picture: picture
    try:
        import cv2
    except ImportError:
        return nv12_to_rgb
    return lambda picture: cv2.cvtColor(picture, cv2.COLOR_YUV2RGB_NV12)


def report(record: dict[str, Any]) -> str:
    """Medians in ms, and the two ways beside one another, round by round."""
    head = ("engine, frames", PILLOW, GRAPH, TOWER, BEFORE, INSIDE, "ratio, least to most")
    rows = []
    for engine, kinds in record["engines"].items():
        for frame, row in kinds.items():
            times = [f"{row['ms'][name]['median_ms']:.1f} ms" for name in head[1:6]]
            whole = row["whole"]
            rows.append(
                (f"{engine}, {frame}", *times, f"{whole['median']:.2f} ({whole['least']:.2f} to {whole['most']:.2f})")
            )
    told = [f"Not run: {engine}: {why}" for engine, why in record["absent"].items()]
    return "\n".join([table(head, rows), *told])


if __name__ == "__main__":
    main()
