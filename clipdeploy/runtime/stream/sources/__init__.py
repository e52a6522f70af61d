"""Where frames come from: one file a kind of source, all of them behind `open_source`."""

from clipdeploy.runtime.stream.sources.backoff import Backoff
from clipdeploy.runtime.stream.sources.opening import open_source
from clipdeploy.runtime.stream.sources.source import Source

__all__ = ["Backoff", "Source", "open_source"]
