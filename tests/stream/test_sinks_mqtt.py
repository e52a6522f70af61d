"""Events to a real broker: delivered, retained, kept while it is away; passwords told to nobody."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from clipdeploy.errors import InputError, OutputError
from clipdeploy.runtime.stream.records import Event
from clipdeploy.runtime.stream.sinks import Mqtt, Outbox
from clipdeploy.runtime.stream.sinks.mqtt import parse_mqtt

pytest.importorskip("paho.mqtt.enums", reason="needs the extra: pip install 'clipdeploy[mqtt]'")
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
SECRET = "gr%3Fen@te"  # as it is, not as a URL writes it


def event(frame: int, label: str = "red circle", camera: str = "door") -> Event:
    return Event("appeared", label, camera, 1_700_000_000.0, 1.0, frame, 0.9)


def wait_until(true: Callable[[], bool], seconds: float = 15.0) -> None:
    ends = monotonic() + seconds
    while not true():
        assert monotonic() < ends, "waited in vain"
        sleep(0.01)


class Broker:
    """A mosquitto of our own on a free port."""

    def __init__(self, folder: Path, options: str = "allow_anonymous true") -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._options, self._config = options, folder / "mosquitto.conf"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Broker:
        assert MOSQUITTO is not None
        # as root it would become another user, who reads no folder of ours
        user = f"user {getpass.getuser()}\n" if os.geteuid() == 0 else ""
        self._config.write_text(f"{user}listener {self.port} 127.0.0.1\n{self._options}\n")
        self._process = subprocess.Popen([MOSQUITTO, "-c", str(self._config)], stderr=subprocess.DEVNULL)
        wait_until(self._listens)
        return self

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


class Listener:
    """Hears all that a broker is told."""

    def __init__(self, port: int) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.heard: list[tuple[str, str, bool]] = []
        ready: list[int] = []
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: ready.append(1)
        self._client.on_message = self._hear
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        wait_until(lambda: bool(ready))

    def _hear(self, client: Any, userdata: Any, message: Any) -> None:
        self.heard.append((message.topic, message.payload.decode(), message.retain))

    def frames(self, topic: str) -> list[int]:
        return [json.loads(text)["frame"] for where, text, _ in self.heard if where == topic]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    if MOSQUITTO is None:
        pytest.skip("no mosquitto here: install the package mosquitto")
    made = Broker(tmp_path)
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Broker]:
    """A broker that lets in `anna` alone."""
    tool = shutil.which("mosquitto_passwd")
    if MOSQUITTO is None or tool is None:
        pytest.skip("no mosquitto here: install the package mosquitto")
    users = tmp_path / "users"
    subprocess.run([tool, "-c", "-b", str(users), "anna", SECRET], check=True, capture_output=True)
    made = Broker(tmp_path, f"allow_anonymous false\npassword_file {users}")
    try:
        yield made.start()
    finally:
        made.stop()


def test_events_arrive_and_the_status_tells_who_is_there(broker: Broker) -> None:
    listener = Listener(broker.port)
    outbox = Outbox([Mqtt(f"mqtt://127.0.0.1:{broker.port}/home/{{camera}}/{{label}}")])
    outbox.put(event(1, "a/b+c#", "front door"))
    outbox.put(event(2))
    outbox.close()
    wait_until(lambda: ("home/status", "offline", False) in listener.heard)
    assert listener.frames("home/front door/a_b_c_") == [1]
    assert listener.frames("home/door/red circle") == [2]
    said = json.loads(next(text for where, text, _ in listener.heard if where.startswith("home/front")))
    assert (said["event"], said["label"], said["camera"]) == ("appeared", "a/b+c#", "front door")
    assert [text for where, text, _ in listener.heard if where == "home/status"] == ["online", "offline"]
    assert outbox.lost == 0
    listener.close()


def test_retained_events_and_status_wait_for_those_who_come_later(broker: Broker) -> None:
    outbox = Outbox([Mqtt(f"mqtt://127.0.0.1:{broker.port}/cam", retain=True)])
    outbox.put(event(5))
    wait_until(lambda: outbox.stats()[0].delivered == 1)
    late = Listener(broker.port)
    wait_until(lambda: len(late.heard) == 2)
    assert {(where, retained) for where, _, retained in late.heard} == {("cam", True), ("cam/status", True)}
    outbox.close()
    late.close()


def test_a_client_that_dies_is_said_to_be_offline_by_the_broker(broker: Broker) -> None:
    listener = Listener(broker.port)
    sink = Mqtt(f"mqtt://127.0.0.1:{broker.port}/cam")
    wait_until(lambda: ("cam/status", "online", False) in listener.heard)
    sink._client.socket().shutdown(socket.SHUT_RDWR)  # as when the power goes: no goodbye
    wait_until(lambda: ("cam/status", "offline", False) in listener.heard)
    sink.close()
    listener.close()


def test_while_the_broker_is_away_events_wait_and_then_arrive_in_order(broker: Broker) -> None:
    outbox = Outbox([Mqtt(f"mqtt://127.0.0.1:{broker.port}/cam")], largest=10)
    outbox.put(event(0))
    wait_until(lambda: outbox.stats()[0].delivered == 1)
    broker.stop()
    wait_until(lambda: not outbox._lanes[0]._sink._connected)  # type: ignore[attr-defined]
    began = monotonic()
    for frame in range(1, 31):
        outbox.put(event(frame))
    assert monotonic() - began < 0.5
    wait_until(lambda: outbox.stats()[0].error is not None)
    stats = outbox.stats()[0]
    assert stats.waiting in (10, 11)
    assert stats.lost == 30 - stats.waiting
    broker.start()
    listener = Listener(broker.port)
    wait_until(lambda: outbox.stats()[0].waiting == 0)
    outbox.close()
    wait_until(lambda: len(listener.frames("cam")) >= stats.waiting)
    heard = listener.frames("cam")
    assert heard == sorted(set(heard))
    assert heard[-1] == 30
    assert outbox.lost == 30 - len(heard) == stats.lost
    listener.close()


def test_no_broker_at_all_loses_events_counts_them_and_closes_in_time() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening: connections are refused
        outbox = Outbox([Mqtt(f"mqtt://127.0.0.1:{taken.getsockname()[1]}/cam")])
        outbox.put(event(1))
        wait_until(lambda: outbox.stats()[0].error is not None)
        began = monotonic()
        outbox.close(timeout=0.5)
        assert monotonic() - began < 5
    assert outbox.lost == 1
    assert "no connection to mqtt://127.0.0.1" in str(outbox.stats()[0].error)


def test_a_password_opens_and_a_wrong_one_is_refused_and_never_told(guarded: Broker) -> None:
    good = Outbox([Mqtt(f"mqtt://anna:gr%253Fen%40te@127.0.0.1:{guarded.port}/cam")])
    good.put(event(1))
    wait_until(lambda: good.stats()[0].delivered == 1)
    bad = Mqtt(f"mqtt://127.0.0.1:{guarded.port}/cam", username="anna", password="wr0ng")
    wait_until(lambda: "refused" in bad._why)
    with pytest.raises(OutputError) as caught:
        bad.write(event(2))
    assert "Not authorized" in str(caught.value)
    for text in (str(caught.value), bad.name, repr(bad), good.stats()[0].sink):
        assert "wr0ng" not in text and SECRET not in text and "anna" not in text
    good.close()
    bad.close()


def test_a_url_is_taken_apart() -> None:
    address = parse_mqtt("mqtts://me:p%2Fw%40@[::1]:99/a/b%20c/{label}")
    assert (address.host, address.port, address.tls) == ("::1", 99, True)
    assert (address.username, address.password, address.topic) == ("me", "p/w@", "a/b c/{label}")
    assert "p/w@" not in repr(address) + str(address)
    plain = parse_mqtt("mqtt://host")
    assert (plain.port, plain.tls, plain.topic, plain.username) == (1883, False, "clipdeploy/events", None)


@pytest.mark.parametrize(
    "url",
    [
        "http://me:hunter2@host/t",
        "mqtt://me:hun/ter2@host/t",
        "mqtt://me:#hunter2@host/t",
        "mqtt://me:?hunter2@host/t",
        "mqtt://me:hunter2@host:port/t",
        "mqtt://me:hunter2@host:99999/t",
        "mqtt://me:hunter2@host/t/{name}",
        "mqtt://me:hunter2@host/t/+/x",
        "mqtt://me:hunter2@[host/t",
        "mqtt:///t?hunter2",
        "hunter2",
    ],
)
def test_a_wrong_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_mqtt(url)
    shown = str(caught.value) + repr(caught.value.__cause__)
    assert "hunter2" not in shown and "ter2" not in shown
    assert caught.value.fix and "mqtt://" in caught.value.fix


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="qos"):
        Mqtt("mqtt://127.0.0.1/t", qos=3)
    with pytest.raises(InputError, match="certificates"):
        Mqtt("mqtts://127.0.0.1/t", ca_certs=tmp_path / "none.pem")
