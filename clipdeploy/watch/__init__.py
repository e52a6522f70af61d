"""Cameras watched: in the terminal, as an annotated video, as a live page. A face of `clipdeploy.runtime.stream`."""

from clipdeploy.watch.job import watch
from clipdeploy.watch.records import Ending, VideoOutcome, View, WatchOutcome, WatchRequest

__all__ = ["Ending", "VideoOutcome", "View", "WatchOutcome", "WatchRequest", "watch"]
