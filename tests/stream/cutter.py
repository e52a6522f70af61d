"""A network that can be cut: a TCP proxy that goes silent, breaks its connections off, or refuses new ones."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

_CHUNK = 1 << 16


class Cutter:
    """Forwards connections at `port` to a port of this machine.

    Args:
        target: the port that is forwarded to.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._open = threading.Event()
        self._open.set()
        self._closed = False
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        self.accepted = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Forward nothing, and tell nobody: what was sent waits, as where a cable is pulled."""
        self._open.clear()

    def reset(self) -> None:
        """Break every connection off at once (RST)."""
        with self._lock:
            broken, self._sockets = self._sockets, set()
        for one in broken:
            with suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with suppress(OSError):
                one.shutdown(socket.SHUT_RD)  # wakes whoever waits in recv, and sends nothing
            one.close()

    def restore(self) -> None:
        """Forward again. What hung is broken off, as a network does that was gone for long."""
        self.reset()
        self._open.set()

    def close(self) -> None:
        """Forward no more, and refuse who comes."""
        self._closed = True
        with suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        self.reset()
        self._open.set()

    def __enter__(self) -> Cutter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._door.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        with self._lock:
            self._sockets.add(client)
        self._open.wait()
        try:
            server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        with self._lock:
            gone = client not in self._sockets  # broken off meanwhile
            self._sockets |= set() if gone else {server}
        if gone:
            server.close()
            return
        back = threading.Thread(target=self._forward, args=(client, server), daemon=True)
        back.start()
        self._forward(server, client)
        back.join()
        with self._lock:
            self._sockets -= {client, server}
        client.close()
        server.close()

    def _forward(self, giver: socket.socket, taker: socket.socket) -> None:
        with suppress(OSError):
            while data := giver.recv(_CHUNK):
                self._open.wait()
                taker.sendall(data)
        with suppress(OSError):
            taker.shutdown(socket.SHUT_WR)
