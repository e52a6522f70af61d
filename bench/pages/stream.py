"""What docs/benchmarks.md says of streams: whether events are right, and how a stream fares over time."""

from __future__ import annotations

from typing import Any

from bench.common import table
from bench.pages.section import Results, Section, block

_EVENTS = """`python -m bench.stream_events`: films of the demo world with ground truth, {fps} frames a second. One
object after the other comes and goes while the light changes; {labels} of 96 classes are labels, the others are given
as `others`, and half of the objects are of those. Thresholds come from frames of {negative_films} other films, of
which {false_alarms:.1%} may pass. `rivals` is {rivals:g}, as one object comes at a time; all else is by default. A
segment, in which the same label or none is in view, is right when every answer in it is, but for {tolerance_s} s at
its ends. `due` are the changes in view, each of which asks for one event; `extra` are events that answer to none:
false alarms and flicker. Over RTSP the network is cut for {cut_s:g} s in the middle of each film, which is played
twice."""

_WAYS = {"frames": "raw frames", "h264": "H.264 file", "rtsp": "RTSP, cut and restored"}

_SOAK = """`python -m bench.stream_soak`: {cameras} cameras of {size} at {fps:g} frames a second on {model},
{minutes:.0f} minutes, in {backend} with {threads}. Resident memory after the first fifth: slope is of the
least-squares line, growth the median of the last tenth over that of the first."""


def stream_sections(results: Results) -> list[Section]:
    """Those of the records that are there."""
    sections = []
    names = sorted(path.stem for path in results.folder.glob("stream_events_*.json"))
    films = [film for film in map(results.get, names) if film is not None]
    if films:
        about = _EVENTS.format(**films[0]["settings"])
        parts = (about, results.measured(films[0]), block(events_table(films)))
        sections.append(Section("Events of a stream", parts))
    record = results.get("stream_soak")
    if record is not None:
        threads = record["environment"]["threads"]
        about = _SOAK.format(
            **{key: record[key] for key in ("size", "fps", "model", "backend")},
            cameras=len(record["cameras"]),
            minutes=record["seconds"] / 60,
            threads=f"{threads} thread{'s' if threads > 1 else ''}",
        )
        sections.append(
            Section("A stream for a long time", (about, results.measured(record), block(soak_text(record))))
        )
    return sections


def events_table(films: list[dict[str, Any]]) -> str:
    """A row a model and a way to the stream."""
    head = ("model", "source", "films", "segments", "right", "share", "due", "on time", "late", "extra")
    rows = [
        (
            film["model"],
            _WAYS[way],
            str(sum(way in one for one in film["films"])),
            *(str(total[key]) for key in ("segments", "right")),
            f"{total['share_right']:.1%}",
            *(str(total[key]) for key in ("due", "on_time", "late", "extra")),
        )
        for film in films
        for way, total in film["totals"].items()
    ]
    return table(head, rows)


def soak_text(record: dict[str, Any]) -> str:
    """Cameras, then memory and times."""
    keys = ("camera", "captured", "answered", "repeated", "dropped", "failed", "undelivered", "reconnects")
    cameras = table(keys, [[str(one[key]) for key in keys] for one in record["cameras"]])
    captured = sum(one["captured"] for one in record["cameras"])
    dropped = sum(one["dropped"] for one in record["cameras"])
    latency, answer = (
        "p50 {:.0f}, p95 {:.0f}, p99 {:.0f} ms".format(*record[key]) for key in ("latency_ms", "answer_ms")
    )
    held = record["resident"]
    memory = f"{held['median_mb']:.0f} MB, {held['slope_mb_an_hour']:+.1f} MB an hour, growth {held['growth']:+.1%}"
    return "\n".join(
        [
            cameras,
            "",
            f"latency   {latency}, from capture to result",
            f"model     {answer}, {record['batch']:.1f} frames a run",
            f"dropped   {dropped} of {captured}, {dropped / max(1, captured):.1%}",
            f"memory    {memory}",
            f"processor {record['cpu_share_of_a_core']:.2f} of a core",
            f"accounts  {'; '.join(record['wrong']) or 'every frame accounted for'}",
        ]
    )
