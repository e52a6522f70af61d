"""Where events go: JSON lines, an MQTT broker, a function; and the outbox that keeps them off the stream's back."""

from clipdeploy.runtime.stream.sinks.base import Sink, event_as_dict, event_as_json
from clipdeploy.runtime.stream.sinks.callback import Callback
from clipdeploy.runtime.stream.sinks.json_lines import JsonLines
from clipdeploy.runtime.stream.sinks.mqtt import Mqtt
from clipdeploy.runtime.stream.sinks.outbox import Outbox, SinkStats

__all__ = ["Callback", "JsonLines", "Mqtt", "Outbox", "Sink", "SinkStats", "event_as_dict", "event_as_json"]
