"""A real RTSP server, on this machine: serves an H.264 file in a loop, as a camera that never stands still.

Run by the system's Python, which has GStreamer's bindings:

    /usr/bin/python3 tests/stream/rtsp_server.py FILE.mp4 [--port 8554] [--user NAME:PASSWORD] [--from-start]

It says `rtsp://127.0.0.1:PORT/video` on standard output once it answers, and ends with its standard input. What a
client sees is what the camera sees now: after a cut the film is further on. FILE should have a key frame a second, and
no B-frames.

Tests use `serve`, which starts and ends it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SYSTEM_PYTHON = "/usr/bin/python3"
_HAS_IT = """
import gi
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
missing = [n for n in ("qtdemux", "h264parse", "rtph264pay", "appsrc", "appsink") if not Gst.ElementFactory.find(n)]
assert not missing, missing
"""


def why_not() -> str | None:
    """Why there can be no server here; None where it can be started."""
    if not Path(SYSTEM_PYTHON).exists():
        return f"there is no {SYSTEM_PYTHON}"
    command = [SYSTEM_PYTHON, "-c", _HAS_IT]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        return f"gir1.2-gst-rtsp-server-1.0 or python3-gi is not installed: {' '.join(last)}"
    return None


@dataclass
class Served:
    """A server that runs."""

    url: str
    port: int
    process: subprocess.Popen[str]

    def kill(self) -> None:
        """As `kill -9` does."""
        self.process.kill()
        self.process.wait(10)


@contextmanager
def serve(path: str | Path, *arguments: str) -> Iterator[Served]:
    """Serve a file at a free port, or at `--port`."""
    command = [SYSTEM_PYTHON, __file__, str(path), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        assert url.startswith("rtsp://"), "the RTSP server did not start"
        yield Served(url, int(url.split(":")[2].split("/")[0]), process)
    finally:
        process.kill()
        process.wait(10)
        process.stdin.close()
        process.stdout.close()


@dataclass(frozen=True)
class Unit:
    """One encoded picture."""

    data: bytes
    duration_ns: int
    key: bool


class Film:
    """All pictures of a file, and how one reads them against the clock."""

    def __init__(self, path: str, gst: Any) -> None:
        self.gst = gst
        reader = gst.parse_launch(
            f'filesrc location="{path}" ! qtdemux ! h264parse config-interval=-1 '
            "! video/x-h264,stream-format=byte-stream,alignment=au ! appsink name=end sync=false"
        )
        end = reader.get_by_name("end")
        reader.set_state(gst.State.PLAYING)
        self.units: list[Unit] = []
        while (sample := end.emit("pull-sample")) is not None:
            buffer = sample.get_buffer()
            data = buffer.extract_dup(0, buffer.get_size())
            self.units.append(Unit(data, buffer.duration, not buffer.has_flags(gst.BufferFlags.DELTA_UNIT)))
        reader.set_state(gst.State.NULL)
        assert self.units, f"{path} has no H.264 video"
        self.seconds = sum(unit.duration_ns for unit in self.units) / 1e9

    def key_before(self, time_s: float) -> int:
        """The last key frame that is not after a time, in a film without an end."""
        left, found = time_s % self.seconds, 0
        for number, unit in enumerate(self.units):
            if left < 0:
                break
            found = number if unit.key else found
            left -= unit.duration_ns / 1e9
        return found

    def feed(self, source: Any, first: int) -> None:
        """Give an appsrc what it asks for, from a picture on."""
        state = {"number": first, "pts": 0}

        def push(source: Any, _: int) -> None:
            unit = self.units[state["number"] % len(self.units)]
            buffer = self.gst.Buffer.new_wrapped(unit.data)
            buffer.pts = buffer.dts = state["pts"]
            buffer.duration = unit.duration_ns
            state["number"] += 1
            state["pts"] += unit.duration_ns
            source.emit("push-buffer", buffer)

        source.connect("need-data", push)


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--user", help="NAME:PASSWORD that a client must give")
    parser.add_argument("--from-start", action="store_true", help="begin anew for each client")
    given = parser.parse_args()

    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    Gst.init(None)
    film = Film(str(Path(given.file).resolve()), Gst)
    began = time.monotonic()

    class Factory(GstRtspServer.RTSPMediaFactory):  # type: ignore[misc]
        def do_create_element(self, url: Any) -> Any:
            pipeline = Gst.parse_launch(
                "( appsrc name=film format=time is-live=false max-bytes=200000 "
                "caps=video/x-h264,stream-format=byte-stream,alignment=au "
                # each key frame of the film brings its parameters along; more of them would part the slices of a frame
                "! h264parse ! rtph264pay name=pay0 pt=96 config-interval=0 )"
            )
            first = 0 if given.from_start else film.key_before(time.monotonic() - began)
            film.feed(pipeline.get_by_name("film"), first)
            return pipeline

    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(given.port))
    factory = Factory()
    if given.user:
        auth = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        name, _, password = given.user.partition(":")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(name, password), token)
        server.set_auth(auth)
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role("user", "media.factory.access", True)
        permissions.add_permission_for_role("user", "media.factory.construct", True)
        factory.set_permissions(permissions)
    server.get_mount_points().add_factory("/video", factory)
    if not server.attach(None):
        sys.exit("the port is taken")

    loop = GLib.MainLoop()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.quit()), daemon=True).start()
    sys.stdout.write(f"rtsp://127.0.0.1:{server.get_bound_port()}/video\n")
    sys.stdout.flush()
    loop.run()


if __name__ == "__main__":
    main()
