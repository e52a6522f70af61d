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
    """Serve `root/ORG/REPO/FILE` as a hub would, and `root/ORG/REPO@REVISION/FILE` as another revision of it.

    Yields the address.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, *, body: bool) -> None:
            parts = self.path.strip("/").split("/", 4)
            if parts == [""]:
                self._send(200, b"", {}, body)
            elif len(parts) != 5 or parts[2] != "resolve" or not (root / parts[0] / parts[1]).is_dir():
                self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)
            elif (found := _revision(root / parts[0] / parts[1], parts[3])) is None:
                self._send(404, b"", {"X-Error-Code": "RevisionNotFound"}, body)
            elif not (file := found[0] / parts[4]).is_file():
                self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": found[1]}, body)
            else:
                content = file.read_bytes()
                etag = f'"{hashlib.sha256(content).hexdigest()}"'
                self._send(200, content, {"ETag": etag, "X-Repo-Commit": found[1]}, body)

        def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
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


def _revision(repository: Path, asked: str) -> tuple[Path, str] | None:
    """The folder and the commit of a revision, named by itself or by its commit."""
    if asked in ("main", COMMIT):
        return repository, COMMIT
    for folder in repository.parent.glob(f"{repository.name}@*"):
        name = folder.name.partition("@")[2]
        commit = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
        if asked in (name, commit):
            return folder, commit
    return None
