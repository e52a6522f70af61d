"""The runtime in an app: a folder of pictures, a camera's frames, and a long time."""

from __future__ import annotations

from bench.folder import report as folder_report
from bench.frames import report as frames_report
from bench.pages.section import Results, Section, block
from bench.soak import GROWTH_AT_MOST, soak_table

_FOLDER = (
    """`python -m bench.folder`: `classify_many` over a folder of 1080p JPEGs beside the usual open_clip script."""
)

_FRAMES = """`python -m bench.frames`: raw camera frames to embeddings of {model} in float32, by the runtime's own
preprocessing and the encoder, and by the frame graph and the encoder ([frames.md](frames.md)); {rounds} rounds, in
which all take turns. `Pillow` is that preprocessing, whose pixels are Pillow's; it has one thread, as for any one
picture; OpenCV makes RGB of nv12 for it. The ratio is of the two ways whole: below 1, frames in the graph are
faster."""

_SOAK = """`python -m bench.soak`: {threads} threads on one object make every kind of call, and each answer is compared
bit for bit with the one of a single thread; then they make {calls:,} calls after {warm_up:,} to warm up. Growth is the
median resident memory of the last tenth over that of the first, at most {most:.0%}; and of {reloads} openings and
closings. {model}, each backend and precision in a process of its own."""


def app_sections(results: Results) -> list[Section]:
    """Those of the records that are there."""
    return [*_folder(results), *_frames(results), *_soak(results)]


def _folder(results: Results) -> list[Section]:
    record = results.get("folder")
    if record is None:
        return []
    return [Section("A folder of JPEGs to labels", (_FOLDER, results.measured(record), block(folder_report(record))))]


def _frames(results: Results) -> list[Section]:
    record = results.get("frames")
    if record is None:
        return []
    about = _FRAMES.format(**record)
    return [Section("Frames in the graph", (about, results.measured(record), block(frames_report(record))))]


def _soak(results: Results) -> list[Section]:
    record = results.get("soak")
    if record is None:
        return []
    asked = record["asked"]
    about = _SOAK.format(**asked, warm_up=asked["calls"] // 10, most=GROWTH_AT_MOST, model=record["model"])
    absent = [row for row in record["rows"] if "absent" in row]
    lines = [f"- Not run: {row['backend']}, {row['precision']}: {row['absent']}" for row in absent]
    told = ["\n".join(lines)] if lines else []
    parts = (about, results.measured(record), block(soak_table(record["rows"])), *told)
    return [Section("The runtime for a long time", parts)]
