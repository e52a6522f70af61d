"""The page's server, asked as browsers and others ask."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from clipdeploy.errors import InputError, OutputError, TextError
from clipdeploy.watch.board import Board
from clipdeploy.watch.web import WebServer, web_address
from clipdeploy.watch.web.handler import VIEWERS
from clipdeploy.watch.web.labels import MOST_BYTES, read_labels
from clipdeploy.watch.web.server import VISITORS
from tests.watch.fake import LABELS, event, frame, result, stats

TOKEN = "correct-horse"


class Labels:
    """Those of a stream that refuses `cat`."""

    def __init__(self) -> None:
        self.now: tuple[str, ...] = LABELS

    def swap(self, labels: Sequence[str]) -> None:
        if "cat" in labels:
            raise TextError("label 'cat' is too long", fix="shorten it")
        self.now = tuple(labels)


class Site:
    """A running server and what stands behind it."""

    def __init__(self, host: str = "127.0.0.1", token: str | None = None, *, baked: bool = False) -> None:
        self.board = Board(("front", "back"), lambda: stats("front", "back"))
        self.labels = Labels()
        self.server = WebServer(web_address(f"{host}:0", token))
        self.port = self.server.port
        swap = None if baked else self.labels.swap
        self.server.start(self.board, title="clipdeploy watch", labels=lambda: self.labels.now, swap=swap)

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request, and the whole answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def post(self, document: object, **headers: str) -> tuple[int, Any]:
        """New labels, as the page sends them; a header's `_` stands for `-`."""
        sent = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        status, _, body = self.ask("/labels", "POST", json.dumps(document).encode(), sent)
        return status, json.loads(body)

    def stream(self, path: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """An answer without an end."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", path)
        return connection, connection.getresponse()

    def close(self) -> None:
        self.board.close()
        self.server.close()


@pytest.fixture
def open_site() -> Iterator[Callable[..., Site]]:
    sites: list[Site] = []

    def make(*args: Any, **kwargs: Any) -> Site:
        sites.append(Site(*args, **kwargs))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


@pytest.fixture
def site(open_site: Callable[..., Site]) -> Site:
    return open_site()


def test_one_page_that_takes_nothing_from_elsewhere(site: Site) -> None:
    status, headers, body = site.ask("/")
    page = body.decode()
    assert status == 200
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert " onclick" not in page
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "set-cookie" not in headers
    assert 'lang="en"' in page
    assert "2 cameras" in page


def test_camera_names_are_no_markup() -> None:
    from clipdeploy.watch.web.page import Page

    page = Page("watch", ("<script>alert(1)</script>$x",), labels_change=True).html.decode()
    assert "<script>alert" not in page
    assert "$x" in page


def test_the_state(site: Site) -> None:
    site.board.take(result(frame(3, size=(64, 48))))
    site.board.event(event())
    told = json.loads(site.ask("/state")[2])
    front, back = told["cameras"]
    assert (front["name"], front["size"], front["present"]) == ("front", [64, 48], [LABELS[0]])
    assert [bar["label"] for bar in front["bars"]] == list(LABELS)
    assert front["bars"][0] == {
        "label": LABELS[0],
        "probability": 0.9,
        "present": True,
        "seconds": front["bars"][0]["seconds"],
    }
    assert back["bars"] == []
    assert (front["dropped"], told["latency_ms"], told["labels"]) == (8, [12.0, 19.0, 31.0], list(LABELS))
    assert told["events"][0]["kind"] == "appeared"


def pictures(answer: http.client.HTTPResponse, count: int) -> list[bytes]:
    """So many JPEGs of a picture that goes on, from behind a boundary."""
    found = []
    for _ in range(count):
        length = 0
        while line := answer.readline().strip():
            if line.lower().startswith(b"content-length"):
                length = int(line.split(b":")[1])
        found.append(answer.read(length))
        assert answer.readline() == b"\r\n"
        assert answer.readline().startswith(b"--")  # sent with the picture, not with the next one
    return found


def first_picture(answer: http.client.HTTPResponse) -> bytes:
    """The one that it begins with."""
    assert answer.readline().startswith(b"--")
    return pictures(answer, 1)[0]


def test_the_picture_goes_on_and_is_the_newest(site: Site) -> None:
    site.board.take(result(frame(0)))
    connection, answer = site.stream("/picture?camera=0")
    assert answer.getheader("Content-Type", "").startswith("multipart/x-mixed-replace")
    first = first_picture(answer)
    for index in range(1, 20):
        site.board.take(result(frame(index)))
    (second,) = pictures(answer, 1)
    assert first[:2] == second[:2] == b"\xff\xd8"
    assert first != second
    connection.close()


def test_a_large_picture_is_sent_small(site: Site) -> None:
    import io

    from PIL import Image

    site.board.take(result(frame(0, size=(1920, 1080), color="nv12")))
    connection, answer = site.stream("/picture?camera=0")
    jpeg = first_picture(answer)
    connection.close()
    assert Image.open(io.BytesIO(jpeg)).size == (960, 540)


def test_a_visitor_who_does_not_read_holds_up_nobody(site: Site) -> None:
    """The results go on at once, and another visitor sees the newest."""
    import numpy as np

    rng = np.random.default_rng(0)
    noise = frame(0, size=(960, 720))
    noisy = [
        type(noise)(rng.integers(0, 256, noise.pixels.shape, dtype=np.uint8), "rgb", "front", i, 0.0, 0.0)
        for i in (0, 1)
    ]
    deaf = socket.create_connection(("127.0.0.1", site.port))
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.sendall(b"GET /picture?camera=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    started = time.monotonic()
    for index in range(200):
        site.board.take(result(noisy[index % 2]))
        time.sleep(0.002)
    assert time.monotonic() - started < 3
    connection, answer = site.stream("/picture?camera=0")
    assert first_picture(answer)[:2] == b"\xff\xd8"
    connection.close()
    deaf.close()


def test_only_so_many_look_at_once(site: Site) -> None:
    site.board.take(result(frame(0)))
    lookers = [site.stream("/picture?camera=0") for _ in range(VIEWERS)]
    assert {answer.status for _, answer in lookers} == {200}
    assert site.ask("/picture?camera=0")[0] == 503
    for connection, answer in lookers:
        answer.close()
        connection.close()
    until = time.monotonic() + 8
    while True:  # who has gone is noticed with the next picture
        site.board.take(result(frame(int(time.monotonic() * 100) % 30)))
        connection, answer = site.stream("/picture?camera=0")
        status = answer.status
        answer.close()
        connection.close()
        if status == 200:
            break
        assert time.monotonic() < until
        time.sleep(0.05)


def news_of(answer: http.client.HTTPResponse) -> Any:
    """The next news."""
    while True:
        line = answer.readline()
        assert line, "the news ended"
        if line.startswith(b"data: "):
            return json.loads(line[6:])


def events_of(answer: http.client.HTTPResponse) -> Any:
    """The next events that are told."""
    while not (events := news_of(answer)["events"]):
        pass
    return events


def test_news_come_as_things_change_and_end_with_the_stream(site: Site) -> None:
    connection, answer = site.stream("/news")
    assert answer.getheader("Content-Type", "").startswith("text/event-stream")
    assert news_of(answer)["events"] == []
    site.board.event(event())
    assert [one["label"] for one in events_of(answer)] == [LABELS[0]]
    site.board.event(event("left"))
    assert [one["kind"] for one in events_of(answer)] == ["left"]  # each is told once
    threading.Timer(0.1, site.board.close).start()
    while not (told := news_of(answer))["over"]:
        pass
    assert told["over"]
    assert answer.read().strip() == b""
    connection.close()


def test_labels_are_swapped(site: Site) -> None:
    assert site.post({"text": " a dog,\na cow\n\n"}) == (200, {"labels": ["a dog", "a cow"]})
    assert site.labels.now == ("a dog", "a cow")
    assert site.post({"labels": ["one, with a comma"]})[0] == 200
    assert site.labels.now == ("one, with a comma",)


def test_what_is_wrong_with_labels_is_said(site: Site) -> None:
    status, said = site.post({"text": "cat"})
    assert (status, said["error"]) == (422, {"message": "label 'cat' is too long", "fix": "shorten it"})
    assert site.labels.now == LABELS
    for wrong in ({"text": " , "}, {}, [], {"labels": [1]}, {"labels": "a"}):
        assert site.post(wrong)[0] == 422
    status, _, body = site.ask("/labels", "POST", b"{", {"Content-Type": "application/json"})
    assert (status, "JSON" in body.decode()) == (422, True)


def test_labels_that_are_baked_in_stay(open_site: Callable[..., Site]) -> None:
    site = open_site(baked=True)
    assert site.post({"text": "a dog"})[0] == 409
    assert b'data-change="no"' in site.ask("/")[2]


def test_deep_json_is_no_crash() -> None:
    with pytest.raises(InputError, match="JSON"):
        read_labels(b"[" * 60_000)
    with pytest.raises(InputError, match="at most"):
        read_labels(json.dumps({"text": "\n".join(map(str, range(2000)))}).encode())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "application/json", "Origin": "http://evil.example"}, 403),
        ({"Content-Type": "application/json", "Origin": "null"}, 403),
        ({"Content-Type": "application/json", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "application/json", "Host": "evil.example"}, 421),
        ({"Content-Type": "application/json", "Content-Length": str(MOST_BYTES + 1)}, 413),
        ({"Content-Type": "application/json", "Content-Length": "-1"}, 411),
        ({"Content-Type": "application/json", "Content-Length": "9" * 5000}, 413),
        ({"Content-Type": "application/json", "Transfer-Encoding": "chunked"}, 411),
    ],
)
def test_changes_that_do_not_come_from_the_page(site: Site, headers: dict[str, str], status: int) -> None:
    body = b'{"text": "a dog"}'
    sent = {"Content-Length": str(len(body)), **headers}
    assert site.ask("/labels", "POST", body, sent)[0] == status
    assert site.labels.now == LABELS


def test_the_page_itself_may_change_labels(site: Site) -> None:
    host = f"localhost:{site.port}"
    status, _ = site.post({"text": "a dog"}, Host=host, Origin=f"http://{host}", Sec_Fetch_Site="same-origin")
    assert status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "192.168.0.7", "", "localhost.evil", "[::2]", "["]
)
def test_a_name_that_only_points_here(site: Site, host: str) -> None:
    for path in ("/", "/state", "/news", "/picture?camera=0"):
        assert site.ask(path, headers={"Host": host})[0] == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:8080", "[::1]:8080", "127.1.2.3"])
def test_names_of_this_machine(site: Site, host: str) -> None:
    assert site.ask("/", headers={"Host": host})[0] == 200


def test_another_site_may_link_here_and_no_more(site: Site) -> None:
    crossing = {"Sec-Fetch-Site": "cross-site"}
    assert site.ask("/", headers={**crossing, "Sec-Fetch-Mode": "navigate"})[0] == 200
    assert site.ask("/state", headers={**crossing, "Sec-Fetch-Mode": "cors"})[0] == 403
    assert site.ask("/picture?camera=0", headers={**crossing, "Sec-Fetch-Mode": "no-cors"})[0] == 403


@pytest.mark.parametrize(("path", "method", "status"), [
    ("/nothing", "GET", 404),
    ("/../../etc/passwd", "GET", 404),
    ("/picture?camera=9", "GET", 404),
    ("/picture?camera=x", "GET", 404),
    ("/picture?camera=²", "GET", 404),
    ("/", "POST", 415),
    ("/labels", "GET", 404),
    ("/labels", "DELETE", 501),
    ("/?" + "a" * 70_000, "GET", 414),
])  # fmt: skip
def test_what_is_not_there(site: Site, path: str, method: str, status: int) -> None:
    connection = socket.create_connection(("127.0.0.1", site.port), timeout=10)
    connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert connection.recv(100).split()[1] == str(status).encode()
    connection.close()


def test_a_token_is_kept_in_a_cookie(open_site: Callable[..., Site]) -> None:
    site = open_site(token=TOKEN)
    status, headers, body = site.ask("/")
    assert (status, "set-cookie" in headers, b'name="token"' in body) == (401, False, True)
    assert site.ask("/state")[0] == site.ask("/picture?camera=0")[0] == site.ask("/news")[0] == 401
    status, headers, _ = site.ask(f"/?token={TOKEN}")
    cookie, *flags = headers["set-cookie"].split("; ")
    assert status == 200
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(flags)
    assert TOKEN not in cookie
    assert headers["referrer-policy"] == "no-referrer"
    assert site.ask("/state", headers={"Cookie": f"other=1; {cookie}"})[0] == 200
    assert site.ask("/state", headers={"Authorization": f"Bearer {TOKEN}"})[0] == 200
    assert site.post({"text": "a dog"})[0] == 401
    assert site.post({"text": "a dog"}, Cookie=cookie)[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Cookie": "clipdeploy_PORT=" + TOKEN},
        {"Cookie": "clipdeploy_PORT="},
        {"Cookie": "\x01;;="},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
    ],
)
def test_wrong_tokens(open_site: Callable[..., Site], headers: dict[str, str]) -> None:
    site = open_site(token=TOKEN)
    told = {name: value.replace("PORT", str(site.port)) for name, value in headers.items()}
    assert site.ask("/state", headers=told)[0] == 401
    assert site.ask("/?token=" + TOKEN + "x")[0] == 401
    assert site.ask("/?token=")[0] == 401


def test_beyond_this_machine_a_token_is_made_up() -> None:
    address = web_address("0.0.0.0:0", None)
    assert address.token is not None
    assert len(address.token) >= 20
    assert address.token not in repr(address)
    server = WebServer(address)
    assert server.open_to_others
    assert server.url.endswith(f":{server.port}/?token={address.token}")
    assert "0.0.0.0" not in server.url
    server.close()
    assert web_address("", None).token is None


def test_beyond_this_machine_any_name_will_do_with_the_token(open_site: Callable[..., Site]) -> None:
    site = open_site("0.0.0.0", TOKEN)
    assert site.ask("/state", headers={"Host": "camera.lan", "Authorization": f"Bearer {TOKEN}"})[0] == 200
    assert site.ask("/state", headers={"Host": "camera.lan"})[0] == 401


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("", "127.0.0.1", 8080),
        ("9000", "127.0.0.1", 9000),
        (":9000", "127.0.0.1", 9000),
        ("0.0.0.0:80", "0.0.0.0", 80),
        ("[::1]:9000", "::1", 9000),
        ("localhost", "localhost", 8080),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    address = web_address(text, TOKEN)
    assert (address.host, address.port, address.token) == (host, port, TOKEN)


@pytest.mark.parametrize("text", ["film.mp4", "a/b", "http://localhost", "localhost:99999", "localhost:x", "::"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InputError, match=r"no address|65535") as caught:
        web_address(text, None)
    assert caught.value.fix is not None
    assert "HOST:PORT" in caught.value.fix


@pytest.mark.parametrize("token", ["", "short", "with a space", "ünicode-token"])
def test_tokens_that_keep_nobody_out(token: str) -> None:
    with pytest.raises(InputError, match="token"):
        web_address("", token)


def test_a_given_port_that_is_taken_is_an_error_and_the_usual_one_moves_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} .* taken") as caught:
            WebServer(web_address(str(port), None))
        assert "--web" in str(caught.value.fix)
        from dataclasses import replace

        server = WebServer(replace(web_address("", None), port=port))
        assert server.port > port
        server.close()


def test_an_address_of_another_machine() -> None:
    with pytest.raises(OutputError, match="cannot be served"):
        WebServer(web_address("192.0.2.1:8080", TOKEN))


def test_more_visitors_than_there_is_room_for(site: Site) -> None:
    """Those who only hold the line are shut out in time, and no thread is left behind."""
    idle = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(VISITORS)]
    time.sleep(0.3)
    late = socket.create_connection(("127.0.0.1", site.port), timeout=5)
    assert late.recv(10) == b""
    for one in [*idle, late]:
        one.close()
    until = time.monotonic() + 5
    while True:
        try:
            assert site.ask("/")[0] == 200
            break
        except (ConnectionError, http.client.HTTPException):
            assert time.monotonic() < until
            time.sleep(0.05)
