"""Cameras that share one model, and what comes and goes in front of them: to the terminal, a file, an MQTT broker.

    pip install 'clipdeploy[cpu,camera]'
    python stream_events.py BUNDLE rtsp://door/stream /dev/video0 --label "a person" --label "a parcel" \
        --thresholds thresholds.json --events events.jsonl --mqtt mqtt://user@broker/home/{camera}/{label}

A source is a video file, rtsp://..., http://..., /dev/videoN, a GStreamer pipeline or a folder of pictures. A camera
that breaks off is opened again; events wait while the disk is full or the broker away. Ctrl-C and SIGTERM end it.

The broker's password comes from the environment, MQTT_PASSWORD, so that it stands in no list of processes.
Under systemd (Type=notify, WatchdogSec=30) it says when it is ready and that it is alive, and `systemctl status` shows
the cameras' frames and drops.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading

import clipdeploy
from clipdeploy.runtime.stream import Event, JsonLines, Mqtt, Sink, Stream, Thresholds


def tell(event: Event) -> None:
    """Print an event; it is called in a thread of its own, so it may take its time."""
    seconds = "" if event.seconds is None else f" after {event.seconds:.1f} s"
    print(f"{event.camera}: {event.label} {event.kind}{seconds}", flush=True)


def notify(text: str) -> None:
    """Tell systemd, where it has started us; the protocol of sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(text.encode(), address.replace("@", "\0", 1) if address.startswith("@") else address)


def watch_over(stream: Stream, done: threading.Event) -> None:
    """Say every ten seconds that the stream is alive, and how it does."""
    while not done.wait(10):
        stats = stream.stats()
        cameras = ", ".join(f"{c.camera} {c.state} {c.fps:.0f}/s, {c.dropped} dropped" for c in stats.cameras)
        notify(f"WATCHDOG=1\nSTATUS={cameras}; p95 {stats.latency_ms[1]:.0f} ms; {stats.events_lost} events lost")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--label", action="append", required=True)
    parser.add_argument("--thresholds")
    parser.add_argument("--events")
    parser.add_argument("--mqtt")
    given = parser.parse_args()

    sinks: list[Sink] = []
    if given.events:
        sinks.append(JsonLines(given.events))
    if given.mqtt:
        sinks.append(Mqtt(given.mqtt, password=os.environ.get("MQTT_PASSWORD")))
    thresholds = Thresholds.from_json(given.thresholds) if given.thresholds else None

    with clipdeploy.load(given.bundle, usual_batch=len(given.sources)) as clip:
        stream = Stream(
            clip, given.sources, labels=given.label, thresholds=thresholds, sinks=sinks, on_event=tell, max_batch=4
        )
        done = threading.Event()
        watcher = threading.Thread(target=watch_over, args=(stream, done), daemon=True)
        with stream.serve_signals():
            notify("READY=1")
            watcher.start()
            stream.run()
        done.set()
        notify("STOPPING=1")
        stats = stream.stats()
    for camera in stats.cameras:
        print(
            f"{camera.camera}: {camera.captured} frames, {camera.answered} answered, {camera.repeated} unchanged, "
            f"{camera.dropped} dropped, {camera.reconnects} reconnections",
            file=sys.stderr,
        )


if __name__ == "__main__":
    try:
        main()
    except clipdeploy.ClipdeployError as error:
        sys.exit(f"{error.message}\n{error.fix or ''}".strip())
