"""Where the page is served, and who is let in."""

from __future__ import annotations

import ipaddress
import re
import secrets
import socket
from dataclasses import dataclass, field

from clipdeploy.errors import InputError

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8080
TRIED_PORTS = 20
_SHORTEST_TOKEN = 8
_FORM = "give HOST:PORT, such as 127.0.0.1:8080, or 0.0.0.0:8080 for all who reach this machine; or --web alone, last"
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class WebAddress:
    """Where to listen.

    Attributes:
        host: name or number.
        port: the first to try where `search`.
        search: whether the next ports are tried where this one is taken.
        token: what visitors must bring; None where only this machine can reach the page and none was given.
    """

    host: str
    port: int
    search: bool
    token: str | None = field(repr=False)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)


def web_address(text: str, token: str | None) -> WebAddress:
    """Read `HOST:PORT`, `HOST`, `PORT` or nothing; make up a token where others can reach the page.

    Raises:
        InputError: it is no address, or the token is too short to keep anybody out.
    """
    host, port = _parts(text.strip())
    if token is not None and (len(token) < _SHORTEST_TOKEN or not _TOKEN.fullmatch(token)):
        raise InputError(
            f"a token has at least {_SHORTEST_TOKEN} letters, digits or signs, and no spaces",
            fix="leave --token out to have one made up, or take a longer one",
        )
    chosen = host or DEFAULT_HOST
    if token is None and not is_loopback(chosen):
        token = secrets.token_urlsafe(18)
    return WebAddress(chosen, DEFAULT_PORT if port is None else port, port is None, token)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, seen from itself alone."""
    name = host.strip("[]").lower().rstrip(".")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def url(host: str, port: int, token: str | None) -> str:
    """What to open in a browser; of an address that stands for all, this machine's own in its network."""
    shown = _own_address(host) if host in ("0.0.0.0", "::", "") else host
    shown = f"[{shown}]" if ":" in shown else shown
    return f"http://{shown}:{port}/" + (f"?token={_quoted(token)}" if token else "")


def _parts(text: str) -> tuple[str, int | None]:
    """Host and port, either of which may be missing."""
    if not text:
        return "", None
    if text.isdecimal():
        return "", _port(text, text)
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.%\w]+\]|[\w.-]*)(?::(\d+))?", text)
    if found is None or "/" in text or (not found[1] and found[2] is None):
        raise InputError(f"{text!r} is no address for the page", fix=_FORM)
    host = found[1].strip("[]")
    if found[2] is None and re.search(r"\.[a-z0-9]*[a-z][a-z0-9]*$", host, re.IGNORECASE) and not _resolves(host):
        raise InputError(f"{text!r} is no address for the page", fix=_FORM)  # a file's name, most likely
    return host, None if found[2] is None else _port(found[2], text)


def _port(digits: str, text: str) -> int:
    port = int(digits)
    if port > 65535:
        raise InputError(f"{text!r}: ports go up to 65535", fix=_FORM)
    return port


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True


def _own_address(host: str) -> str:
    """The number by which others reach this machine; nothing is sent to find it."""
    family, far = (socket.AF_INET6, "2001:db8::1") if host == "::" else (socket.AF_INET, "192.0.2.1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return socket.gethostname()


def _quoted(token: str) -> str:
    from urllib.parse import quote

    return quote(token, safe="")
