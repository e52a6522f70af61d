"""One visitor's request: the page, the picture, the news, and new labels."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from threading import BoundedSemaphore
from typing import Any
from urllib.parse import parse_qs, urlsplit

from clipdeploy.errors import ClipdeployError
from clipdeploy.watch.board import Board
from clipdeploy.watch.web.darkroom import Darkroom
from clipdeploy.watch.web.guard import Guard, Refusal
from clipdeploy.watch.web.labels import MOST_BYTES, read_labels
from clipdeploy.watch.web.page import Page
from clipdeploy.watch.web.state import state

VIEWERS = 8  # pictures, and as many streams of news, that are sent at once
NEWS_EVERY_S = 0.1
_PICTURE_EVERY_S = 1 / 30
_HEARTBEAT_S = 5.0
_PATIENCE_S = 10.0  # of a visitor who neither reads nor writes
_BOUNDARY = "clipdeploy-frame"


@dataclass(frozen=True)
class Desk:
    """What all visitors share.

    Attributes:
        board: what was seen last.
        darkroom: the same as JPEGs.
        guard: who is let in.
        page: what is served.
        labels: those in force.
        swap: replaces them; None where they are baked in.
        pictures: one permit a picture that is being sent.
        news: likewise, of news.
    """

    board: Board
    darkroom: Darkroom
    guard: Guard
    page: Page
    labels: Callable[[], tuple[str, ...]]
    swap: Callable[[Sequence[str]], None] | None
    pictures: BoundedSemaphore
    news: BoundedSemaphore


class Handler(BaseHTTPRequestHandler):
    """Answers one visitor, in a thread of its own."""

    protocol_version = "HTTP/1.1"
    server_version = "clipdeploy"
    sys_version = ""
    timeout = _PATIENCE_S
    desk: Desk

    def do_GET(self) -> None:
        """`/`, `/picture?camera=N`, `/news`, `/state`."""
        self._answer({"/": self._page, "/picture": self._picture, "/news": self._news, "/state": self._state})

    def do_POST(self) -> None:
        """`/labels`."""
        self._answer({"/labels": self._labels}, change=True)

    def _answer(self, routes: dict[str, Callable[[], None]], *, change: bool = False) -> None:
        parts = urlsplit(self.path)
        self._query = parse_qs(parts.query, max_num_fields=8)
        token = self._query.get("token", [None])[0]
        refusal = self.desk.guard.refuse(self.headers, token)
        if refusal is None and change:
            refusal = self.desk.guard.refuse_change(self.headers)
        if refusal is None and parts.path not in routes:
            refusal = Refusal(HTTPStatus.NOT_FOUND, "there is nothing here")
        if refusal is not None:
            self._refuse(refusal, as_page=parts.path == "/" and not change)
            return
        self._token = token
        try:
            routes[parts.path]()
        except (ConnectionError, TimeoutError):
            self.close_connection = True  # the visitor has gone, or does not listen

    def _page(self) -> None:
        cookie = self.desk.guard.cookie(self._token)
        self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.desk.page.html, cookie=cookie)

    def _state(self) -> None:
        self._send_json(HTTPStatus.OK, state(self.desk.board, self.desk.labels, events_after=0))

    def _labels(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or self.headers.get("Transfer-Encoding"):
            self._refuse(Refusal(HTTPStatus.LENGTH_REQUIRED, "send its length"))
            return
        if len(length) > 9 or int(length) > MOST_BYTES:
            self._refuse(Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {MOST_BYTES // 1000} kB of labels"))
            return
        body = self.rfile.read(int(length))
        if self.desk.swap is None:
            self._send_json(HTTPStatus.CONFLICT, _error("the labels are baked into this bundle", None))
            return
        try:
            self.desk.swap(read_labels(body))
        except ClipdeployError as error:
            self._send_json(HTTPStatus.UNPROCESSABLE_ENTITY, _error(error.message, error.fix))
            return
        self._send_json(HTTPStatus.OK, {"labels": list(self.desk.labels())})

    def _picture(self) -> None:
        """Newest frames as they come, each in place of the last; a slow visitor misses some, and holds up nobody."""
        number = self._query.get("camera", ["0"])[0]
        cameras = self.desk.board.cameras
        if not (number.isascii() and number.isdigit() and len(number) < 6 and int(number) < len(cameras)):
            self._refuse(Refusal(HTTPStatus.NOT_FOUND, "there is no such camera"))
            return
        if not self.desk.pictures.acquire(blocking=False):
            self._refuse(Refusal(HTTPStatus.SERVICE_UNAVAILABLE, f"{VIEWERS} visitors look already"))
            return
        try:
            self._begin(f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
            self.wfile.write(f"--{_BOUNDARY}\r\n".encode())
            self._send_pictures(cameras[int(number)])
        finally:
            self.desk.pictures.release()

    def _send_pictures(self, camera: str) -> None:
        sent, last, at = 0, b"", time.monotonic()
        while not self.desk.board.closed:
            made = self.desk.darkroom.newest(camera, sent, 1.0)
            if made is not None:
                sent, last = made.number, made.jpeg
            elif not last or time.monotonic() - at < _HEARTBEAT_S:
                continue  # a picture that stands still is sent now and then, to notice who has gone
            # With the boundary behind it, at which browsers show what came before.
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(last)}\r\n\r\n".encode()
            self.wfile.write(head + last + f"\r\n--{_BOUNDARY}\r\n".encode())
            rest, at = _PICTURE_EVERY_S - (time.monotonic() - at), time.monotonic()
            if rest > 0:
                time.sleep(rest)

    def _news(self) -> None:
        """Server-sent events: the state, ten times a second, where it has changed."""
        if not self.desk.news.acquire(blocking=False):
            self._refuse(Refusal(HTTPStatus.SERVICE_UNAVAILABLE, f"{VIEWERS} visitors look already"))
            return
        try:
            self._begin("text/event-stream; charset=utf-8")
            self._send_news()
        finally:
            self.desk.news.release()

    def _send_news(self) -> None:
        told, before, at, over = 0, "", time.monotonic(), False
        while not over:
            over = self.desk.board.closed
            news = state(self.desk.board, self.desk.labels, events_after=told)
            told = max((event["number"] for event in news["events"]), default=told)
            text = json.dumps(news, ensure_ascii=False)
            now = time.monotonic()
            if text != before:
                self.wfile.write(f"data: {text}\n\n".encode("utf-8", "replace"))
                before, at = text, now
            elif now - at > _HEARTBEAT_S:
                self.wfile.write(b": still here\n\n")
                at = now
            time.sleep(NEWS_EVERY_S)

    def _begin(self, kind: str) -> None:
        """Headers of an answer without an end."""
        self.close_connection = True
        self.send_response(HTTPStatus.OK)
        self._headers(kind)
        self.send_header("Connection", "close")
        self.end_headers()

    def _refuse(self, refusal: Refusal, *, as_page: bool = False) -> None:
        self.close_connection = True  # its body was not read
        if as_page and refusal.status is HTTPStatus.UNAUTHORIZED:
            self._send(refusal.status, "text/html; charset=utf-8", self.desk.page.door(refusal.message))
        else:
            self._send_json(refusal.status, _error(refusal.message, None))

    def _send_json(self, status: HTTPStatus, document: dict[str, Any]) -> None:
        body = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
        self._send(status, "application/json; charset=utf-8", body)

    def _send(self, status: HTTPStatus, kind: str, body: bytes, *, cookie: str | None = None) -> None:
        self.send_response(status)
        self._headers(kind)
        self.send_header("Content-Length", str(len(body)))
        if cookie is not None:
            self.send_header("Set-Cookie", cookie)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _headers(self, kind: str) -> None:
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", self.desk.page.policy)
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal shows the cameras, and an address holds the token."""


def _error(message: str, fix: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "fix": fix}}
