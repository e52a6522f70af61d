"""Frames in, results out, newest first; see `stream.py`.

from clipdeploy.runtime.stream import Stream, open_source
"""

from clipdeploy.runtime.stream.answerer import Answerer, BakedAnswerer, ClipAnswerer
from clipdeploy.runtime.stream.colour import to_rgb
from clipdeploy.runtime.stream.decide import Decider, Smoothing, Thresholds, calibrate_thresholds
from clipdeploy.runtime.stream.gate import Gate
from clipdeploy.runtime.stream.records import (
    NONE_OF_THESE,
    CameraStats,
    Decision,
    Event,
    Frame,
    Result,
    Scores,
    StreamStats,
)
from clipdeploy.runtime.stream.sinks import Callback, JsonLines, Mqtt, Outbox, Sink, SinkStats
from clipdeploy.runtime.stream.sources import Backoff, Source, open_source
from clipdeploy.runtime.stream.stream import Stream

__all__ = [
    "NONE_OF_THESE",
    "Answerer",
    "Backoff",
    "BakedAnswerer",
    "Callback",
    "CameraStats",
    "ClipAnswerer",
    "Decider",
    "Decision",
    "Event",
    "Frame",
    "Gate",
    "JsonLines",
    "Mqtt",
    "Outbox",
    "Result",
    "Scores",
    "Sink",
    "SinkStats",
    "Smoothing",
    "Source",
    "Stream",
    "StreamStats",
    "Thresholds",
    "calibrate_thresholds",
    "open_source",
    "to_rgb",
]
