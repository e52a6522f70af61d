"""The web server of the page: started beside the stream, ended with it."""

from __future__ import annotations

import errno
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Sequence
from http.server import ThreadingHTTPServer
from typing import Any

from clipdeploy.errors import InputError, OutputError
from clipdeploy.watch.board import Board
from clipdeploy.watch.web.address import TRIED_PORTS, WebAddress, url
from clipdeploy.watch.web.darkroom import Darkroom
from clipdeploy.watch.web.guard import Guard
from clipdeploy.watch.web.handler import NEWS_EVERY_S, VIEWERS, Desk, Handler
from clipdeploy.watch.web.page import Page

VISITORS = 40  # connections at once; those beyond are closed unanswered


class WebServer:
    """Serves the page until closed.

    Args:
        address: where, and who is let in.

    Raises:
        InputError: the port is taken. OutputError: the address is not this machine's, or may not be used.
    """

    def __init__(self, address: WebAddress) -> None:
        self._address = address
        self._server = _listening(address)
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """That it is served on."""
        return int(self._server.server_address[1])

    @property
    def open_to_others(self) -> bool:
        """Whether other machines can reach it."""
        return not self._address.loopback

    @property
    def url(self) -> str:
        """What to open, token and all."""
        return url(self._address.host, self.port, self._address.token)

    def start(
        self,
        board: Board,
        *,
        title: str,
        labels: Callable[[], tuple[str, ...]],
        swap: Callable[[Sequence[str]], None] | None,
    ) -> None:
        """Answer visitors, in threads of its own.

        Args:
            board: what was seen last.
            title: of the page.
            labels: those in force.
            swap: replaces them; None where that cannot be.
        """
        guard = Guard(self._address.token, loopback=self._address.loopback, port=self.port)
        page = Page(title, board.cameras, labels_change=swap is not None)
        permits = threading.BoundedSemaphore(VIEWERS), threading.BoundedSemaphore(VIEWERS)
        desk = Desk(board, Darkroom(board), guard, page, labels, swap, *permits)
        self._server.RequestHandlerClass = type("Visit", (Handler,), {"desk": desk})
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="web", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more visitors; those there are told by the board that all is over, and get a moment to hear it."""
        if self._thread is not None:
            if self._server.visited:
                time.sleep(3 * NEWS_EVERY_S)
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(self, address: tuple[str, int], family: socket.AddressFamily) -> None:
        self.address_family = family
        self._visitors = threading.BoundedSemaphore(VISITORS)
        self.visited = False
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """Without asking a name server who this is, which may take seconds."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for one more."""
        self.visited = True
        return self._visitors.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One visitor, and room again behind it."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._visitors.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a visitor who hangs up is no news."""


def _listening(address: WebAddress) -> _Server:
    ports = range(address.port, address.port + TRIED_PORTS) if address.search else (address.port,)
    for port in ports:
        try:
            found = socket.getaddrinfo(address.host, port, type=socket.SOCK_STREAM)[0]
            return _Server((found[4][0], port), found[0])  # type: ignore[arg-type]
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise OutputError(
                    f"the page cannot be served on {address.host}:{port}: {error.strerror or error}",
                    fix="give an address of this machine, and a port above 1023: --web 127.0.0.1:8080",
                ) from error
    if address.search:
        tried = f"ports {address.port} to {ports[-1]} of {address.host} are all taken"
    else:
        tried = f"port {address.port} of {address.host} is taken"
    raise InputError(tried, fix="give another one: --web HOST:PORT, or --web alone for the first free one")
