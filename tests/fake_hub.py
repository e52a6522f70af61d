"""A Hugging Face hub on this machine, small enough to answer the client's questions about a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve(root: Path) -> Iterator[str]:
    """Serve `root/ORG/REPO/FILE` as a hub would; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, *, body: bool) -> None:
            parts = self.path.strip("/").split("/")
            if parts == [""]:
                self._send(200, b"", {}, body)
            elif len(parts) != 5 or parts[2] != "resolve" or not (root / parts[0] / parts[1]).is_dir():
                self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)
            elif not (file := root / parts[0] / parts[1] / parts[4]).is_file():
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
            else:
                content = file.read_bytes()
                self._send(200, content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'}, body)

        def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
            self.send_response(status)
            for name, value in {**headers, "X-Repo-Commit": COMMIT, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
