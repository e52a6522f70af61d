"""Events to an MQTT broker, through paho-mqtt."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from threading import Condition
from time import monotonic
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit
from uuid import uuid4

from clipdeploy.errors import InputError, MissingExtraError, OutputError
from clipdeploy.runtime.stream.records import Event
from clipdeploy.runtime.stream.sinks.base import event_as_json

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_TOPIC = "clipdeploy/events"
_ACKNOWLEDGED_S = 10.0  # how long one attempt waits for the broker's word
_GOODBYE_S = 2.0
_CONNECT_S = 5.0
_FORM = (
    "write it as mqtt://user:password@host:1883/topic, or mqtts:// for TLS; with %40 for @, %2F for /, %3A for :, "
    "%23 for # and %3F for ? in a name or password, or pass those as `username` and `password`"
)


@dataclass(frozen=True)
class MqttAddress:
    """A broker's URL, taken apart; neither its text nor its messages show the password."""

    host: str
    port: int
    tls: bool
    topic: str
    username: str | None
    password: str | None = field(repr=False)

    def __str__(self) -> str:
        return f"mqtt{'s' if self.tls else ''}://{self.host}:{self.port}/{self.topic}"


def parse_mqtt(url: str) -> MqttAddress:
    """The parts of `mqtt://[user[:password]@]host[:port][/topic]`; the topic may hold `{camera}` and `{label}`.

    Raises:
        InputError: it is no such URL. Its text is not repeated, as a password may stand anywhere in a wrong one.
    """
    try:
        parts: SplitResult = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise InputError("the URL of the MQTT broker cannot be read", fix=_FORM) from None
    if parts.scheme not in _PORTS or not host or parts.query or parts.fragment or "@" in parts.path:
        raise InputError("the URL of the MQTT broker is not of the form mqtt://host/topic", fix=_FORM)
    topic = unquote(parts.path.strip("/")) or _TOPIC
    plain = topic.replace("{camera}", "").replace("{label}", "")
    if any(sign in plain for sign in "{}+#\0"):
        raise InputError(
            "the MQTT topic may hold {camera} and {label}, and none of { } + # besides",
            fix="for example mqtt://host/home/{camera}/{label}",
        )
    return MqttAddress(
        host,
        port or _PORTS[parts.scheme],
        parts.scheme == "mqtts",
        topic,
        None if parts.username is None else unquote(parts.username),
        None if parts.password is None else unquote(parts.password),
    )


class Mqtt:
    """Publishes each event as JSON and waits for the broker's word that it has it.

    The connection is made, and made again, in the background; while the broker is away events are refused, and wait in
    the outbox. Beside the topic stands `<topic>/status` (what precedes the first `{` of it): `online` and `offline`,
    retained; the broker itself says `offline` when the connection is lost.

    Args:
        url: `mqtt://user:password@host:1883/topic`, or `mqtts://` for TLS. `{camera}` and `{label}` in the topic are
            filled in; a `/`, `+` or `#` in those becomes `_`.
        username: in place of the URL's, so that it stands in no command line.
        password: likewise.
        qos: 1 delivers at least once, 2 exactly once, 0 perhaps.
        retain: whether the broker keeps the last event of a topic for those who come later: with `{camera}/{label}`
            in the topic, whether each label is in view now.
        ca_certs: file of the authorities to trust, for TLS; None takes the system's.
        client_id: for brokers that ask for a certain one.
        keepalive_s: after 1.5 times this the broker knows that the connection is lost.

    Raises:
        InputError: an argument is wrong. MissingExtraError: paho-mqtt is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        username: str | None = None,
        password: str | None = None,
        qos: int = 1,
        retain: bool = False,
        ca_certs: str | os.PathLike[str] | None = None,
        client_id: str | None = None,
        keepalive_s: int = 30,
    ) -> None:
        if qos not in (0, 1, 2):
            raise InputError(f"qos must be 0, 1 or 2, got {qos!r}")
        self._address = parse_mqtt(url)
        self.name = str(self._address)
        self.status_topic = f"{self._address.topic.partition('{')[0].rstrip('/') or 'clipdeploy'}/status"
        self._qos, self._retain = qos, retain
        self._changed = Condition()
        self._connected = False
        self._why = f"no connection to {self.name} yet"
        self._acknowledged: set[int] = set()
        self._sent: tuple[Event, int] | None = None  # published, not acknowledged yet
        self._client = _client(client_id or f"clipdeploy-{uuid4().hex[:12]}")
        username = self._address.username if username is None else username
        if username is not None:
            self._client.username_pw_set(username, self._address.password if password is None else password)
        if self._address.tls:
            _use_tls(self._client, ca_certs)
        self._client.will_set(self.status_topic, "offline", qos=1, retain=True)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        self._client.connect_timeout = _CONNECT_S
        self._client.reconnect_delay_set(min_delay=1, max_delay=30)
        self._client.connect_async(self._address.host, self._address.port, keepalive=keepalive_s)
        self._client.loop_start()

    def __repr__(self) -> str:
        return f"Mqtt({self.name!r})"

    def write(self, event: Event) -> None:
        """Publish one event and wait until the broker has it.

        Raises:
            OutputError: there is no connection, or the broker does not answer. Given again, the event is not sent
                twice if it is still on its way.
        """
        if self._sent is None or self._sent[0] is not event:
            self._publish(event)
        assert self._sent is not None
        number = self._sent[1]
        with self._changed:
            if not self._changed.wait_for(lambda: number in self._acknowledged, _ACKNOWLEDGED_S):
                raise OutputError(f"{self.name} has not acknowledged an event for {_ACKNOWLEDGED_S:g} s; {self._why}")
        self._sent = None

    def _publish(self, event: Event) -> None:
        with self._changed:
            if not self._connected:
                raise OutputError(self._why)
            self._acknowledged.clear()
        topic = self._address.topic.replace("{camera}", _level(event.camera)).replace("{label}", _level(event.label))
        # no lock of ours is held here: paho calls back under its own
        info = self._client.publish(topic, event_as_json(event), qos=self._qos, retain=self._retain)
        if self._qos == 0 and info.rc != 0:  # with 1 and 2 the client keeps it until it is connected again
            raise OutputError(f"no connection to {self.name}")
        self._sent = (event, info.mid)

    def close(self) -> None:
        """Say `offline` and disconnect."""
        if self._connected:
            info = self._client.publish(self.status_topic, "offline", qos=1, retain=True)
            until = monotonic() + _GOODBYE_S
            with self._changed:
                while info.mid not in self._acknowledged and self._connected and monotonic() < until:
                    self._changed.wait(until - monotonic())
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        with self._changed:
            self._connected = not reason.is_failure
            self._why = f"{self.name} refused the connection: {reason}" if reason.is_failure else "connected"
            self._changed.notify_all()
        if not reason.is_failure:
            client.publish(self.status_topic, "online", qos=1, retain=True)

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        with self._changed:
            if self._connected:  # a refused connection ends with a disconnection too, and has said why
                self._why = f"the connection to {self.name} was lost: {reason}"
            self._connected = False
            self._changed.notify_all()

    def _on_publish(self, client: Any, userdata: Any, number: int, reason: Any, properties: Any) -> None:
        with self._changed:
            self._acknowledged.add(number)
            self._changed.notify_all()


def _level(name: str) -> str:
    """A name as one level of a topic."""
    for sign in "/+#\0":
        name = name.replace(sign, "_")
    return name


def _client(client_id: str) -> Any:
    try:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion
    except ImportError as error:  # versions before 2 lack the second
        raise MissingExtraError("paho-mqtt 2 or later", extra="mqtt", needed_for="sending events by MQTT") from error
    return Client(CallbackAPIVersion.VERSION2, client_id=client_id)


def _use_tls(client: Any, ca_certs: str | os.PathLike[str] | None) -> None:
    try:
        client.tls_set(ca_certs=None if ca_certs is None else os.fspath(ca_certs))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the certificates {ca_certs}: {error}", fix="pass a PEM file") from error
