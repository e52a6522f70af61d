"""Network streams: a real RTSP server, a network that is cut, servers that say nothing or the wrong thing."""

from __future__ import annotations

import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from PIL import Image

from clipdeploy.errors import SourceError
from clipdeploy.runtime.nv12 import nv12_to_rgb
from clipdeploy.runtime.stream.records import Frame
from clipdeploy.runtime.stream.sources import open_source
from tests.stream.cutter import Cutter
from tests.stream.films import CAMERA, demo_frames, patches, write_film
from tests.stream.rtsp_server import Served, serve, why_not

pytest.importorskip("av")

SECRET = "hunter" + "2"
"""In no line of the code, so that a traceback that shows it was told it."""
_WHY_NOT = why_not()
needs_rtsp = pytest.mark.skipif(_WHY_NOT is not None, reason=f"no RTSP server here: {_WHY_NOT}")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One picture, as a camera would send it."""
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4", [patches()] * 40, fps=20, options=CAMERA)


@pytest.fixture(scope="module")
def server(film: Path) -> Iterator[Served]:
    with serve(film) as served:
        yield served


def broken(
    source: object, at_least: int = 0, act: Callable[[], None] | None = None
) -> tuple[list[Frame], SourceError, float]:
    """Read until it breaks off, having acted once some frames were there: the frames, why, and how long that took."""
    frames: list[Frame] = []
    began = time.monotonic()
    with pytest.raises(SourceError) as caught:
        for frame in source.frames(Event()):  # type: ignore[attr-defined]
            frames.append(frame)
            if act is not None and len(frames) == at_least:
                began = time.monotonic()
                act()
    return frames, caught.value, time.monotonic() - began


def told(error: BaseException) -> str:
    """All that a log would show of it."""
    return "".join(traceback.format_exception(error))


def some(source: object, count: int) -> list[Frame]:
    with closing(source.frames(Event())) as frames:  # type: ignore[attr-defined]
        return [next(frames) for _ in range(count)]


@needs_rtsp
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_an_rtsp_camera(server: Served, transport: str) -> None:
    source = open_source(server.url, transport=transport)
    assert source.live
    frames = some(source, 24)
    assert [frame.index for frame in frames] == sorted({frame.index for frame in frames})
    assert {frame.position for frame in frames} == {None}
    # at the camera's pace, once what had come until the first was decoded has been taken
    assert 0.2 < frames[-1].captured - frames[-12].captured < 3
    assert np.abs(frames[-1].pixels.astype(int) - patches())[20::40, 20::40].max() <= 12
    again = some(source, 1)
    assert again[0].index > frames[-1].index


@needs_rtsp
def test_an_rtsp_camera_in_nv12_and_fewer_frames(server: Served) -> None:
    frames = some(open_source(server.url, color="nv12", fps=5), 4)
    assert np.abs(nv12_to_rgb(frames[-1].pixels).astype(int) - patches())[20::40, 20::40].max() <= 12
    gaps = np.diff([frame.captured for frame in frames[1:]])
    assert gaps.min() > 0.1


@needs_rtsp
def test_a_slow_taker_sees_the_newest_frame(server: Served) -> None:
    with closing(open_source(server.url).frames(Event())) as frames:  # type: ignore[type-var]
        next(frames)
        began, first = time.monotonic(), next(frames).index
        for _ in range(4):
            time.sleep(0.5)
            last = next(frames)
        assert last.index - first >= 0.8 * 20 * (time.monotonic() - began) - 4
        assert time.monotonic() - last.captured < 0.2


@needs_rtsp
def test_a_network_that_is_cut_in_silence_is_noticed_and_comes_back(server: Served) -> None:
    with Cutter(server.port) as network:
        source = open_source(server.url.replace(str(server.port), str(network.port)), timeout_s=1.5)
        frames, error, took_s = broken(source, 5, network.cut)
        assert "no picture came for 1.5 s" in error.message
        assert 1.0 < took_s < 3.0
        _, error, took_s = broken(source)  # it cannot be opened either
        assert "no picture came for 3 s" in error.message or "cannot be opened" in error.message
        assert took_s < 4.0
        network.restore()
        assert some(source, 3)[0].index > frames[-1].index


@needs_rtsp
def test_a_connection_that_is_reset_is_noticed_at_once(server: Served) -> None:
    with Cutter(server.port) as network:
        source = open_source(server.url.replace(str(server.port), str(network.port)))
        _, error, took_s = broken(source, 5, network.reset)
        assert "has ended" in error.message or "has broken off" in error.message
        assert took_s < 1.5


@needs_rtsp
def test_a_server_that_is_killed_is_noticed_and_may_come_back(film: Path) -> None:
    with serve(film) as first:
        source = open_source(first.url)
        frames, error, took_s = broken(source, 5, first.kill)
        assert took_s < 1.5
        assert first.url in error.message
    _, error, _ = broken(source)
    assert "cannot be opened" in error.message
    with serve(film, "--port", str(first.port)):
        assert some(source, 2)[0].index > frames[-1].index


@needs_rtsp
def test_a_wrong_password_is_not_told(film: Path) -> None:
    with serve(film, "--user", "bob:opensesame") as served:
        address = served.url.partition("//")[2]
        assert some(open_source(f"rtsp://bob:opensesame@{address}"), 1)
        _, error, _ = broken(open_source(f"rtsp://bob:{SECRET}@{address}"))
    assert "401" in error.message
    assert SECRET not in told(error)
    assert "bob" not in str(error)


@contextmanager
def listening(answer: bytes = b"") -> Iterator[int]:
    """A server that accepts, gives an answer to whatever it is asked, and then says nothing; its port."""
    door = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                client, _ = door.accept()
            except OSError:
                return
            held.append(client)
            if answer:
                client.sendall(answer)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield door.getsockname()[1]
    finally:
        door.shutdown(socket.SHUT_RDWR)
        door.close()
        thread.join(5)
        for one in held:
            one.close()


@pytest.mark.parametrize("scheme", ["rtsp", "http", "rtmp", "tcp"])
def test_a_server_that_says_nothing_is_given_up(scheme: str) -> None:
    with listening() as port:
        _, error, took_s = broken(open_source(f"{scheme}://bob:{SECRET}@127.0.0.1:{port}/a", timeout_s=0.5))
        assert took_s < 2.0
        assert SECRET not in told(error)


@pytest.mark.parametrize("scheme", ["rtsp", "http", "rtmp", "tcp"])
def test_a_source_stops_although_its_server_says_nothing(scheme: str) -> None:
    stop = Event()
    with listening() as port:
        source = open_source(f"{scheme}://127.0.0.1:{port}/a", timeout_s=1.5)
        threading.Timer(0.3, stop.set).start()
        began = time.monotonic()
        assert list(source.frames(stop)) == []
        assert time.monotonic() - began < 1.3


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_server_that_speaks_of_something_else(scheme: str) -> None:
    with listening(b"220 mail.example.org ESMTP\r\n\r\n" * 50) as port:
        _, error, took_s = broken(open_source(f"{scheme}://127.0.0.1:{port}/a", timeout_s=1))
    assert took_s < 3
    assert f"{scheme}://127.0.0.1:{port}/a" in error.message


def test_nobody_there() -> None:
    with listening() as port:
        pass
    _, error, took_s = broken(open_source(f"rtsp://127.0.0.1:{port}/a"))
    assert "Connection refused" in error.message
    assert took_s < 2


@contextmanager
def serving(content: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """An HTTP server; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                content(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def jpeg(level: int) -> bytes:
    data = BytesIO()
    Image.new("RGB", (64, 48), (level, level, level)).save(data, "JPEG")
    return data.getvalue()


def test_motion_jpeg_over_http_and_its_end() -> None:
    def content(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        request.end_headers()
        for level in range(0, 200, 10):
            data = jpeg(level)
            request.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data))
            request.wfile.write(data + b"\r\n")
            time.sleep(0.05)

    with serving(content) as address:
        frames, error, _ = broken(open_source(f"{address}/video"))
    levels = [int(frame.pixels[20, 20, 0]) for frame in frames]
    assert len(levels) > 5
    assert levels == sorted(levels)
    assert levels[-1] >= 170
    assert "has ended" in error.message or "has broken off" in error.message


def test_a_film_over_http_is_played_once_at_its_own_pace(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", demo_frames(1), container={"movflags": "faststart"})

    def content(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(film.stat().st_size))
        request.end_headers()
        request.wfile.write(film.read_bytes())

    with serving(content) as address:
        began = time.monotonic()
        count = len(list(open_source(f"{address}/film.mp4").frames(Event())))
        assert 0.8 < time.monotonic() - began < 3
        assert 10 <= count <= 15
        every = list(open_source(f"{address}/film.mp4", realtime=False).frames(Event()))
        assert [frame.index for frame in every] == list(range(15))


def test_a_missing_page_is_told() -> None:
    with serving(lambda request: request.send_error(404)) as address:
        _, error, _ = broken(open_source(f"{address}/video?token={SECRET}"))
    assert "404" in error.message
    assert SECRET not in str(error)
