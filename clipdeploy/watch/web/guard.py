"""Who may see the page and who may change its labels: host names, tokens, cookies, origins."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from clipdeploy.watch.web.address import is_loopback

Headers = Message
"""Of a request; the same name in any letters."""


@dataclass(frozen=True)
class Refusal:
    """Why a request is not answered, and what the visitor can do."""

    status: HTTPStatus
    message: str


class Guard:
    """Decides by a request's headers; holds no state.

    Args:
        token: what visitors must bring; None asks for none.
        loopback: whether the page is this machine's alone.
        port: that it is served on.
    """

    def __init__(self, token: str | None, *, loopback: bool, port: int) -> None:
        self._token, self._loopback = token, loopback
        # Cookies know no ports: two pages of one host must not take each other's.
        self._cookie = f"clipdeploy_{port}"
        self._secret = hmac.new((token or "").encode(), b"clipdeploy watch", hashlib.sha256).hexdigest()

    def refuse(self, headers: Headers, token: str | None) -> Refusal | None:
        """Whether anybody may ask this: the right host name, and the token, in the address, a header or the cookie."""
        return self._wrong_host(headers) or self._wrong_site(headers) or self._no_token(headers, token)

    def refuse_change(self, headers: Headers) -> Refusal | None:
        """Whether a change comes from the page itself: JSON, and of its own origin."""
        kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        origin = headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc.lower() != headers.get("Host", "").lower():
            return Refusal(HTTPStatus.FORBIDDEN, "labels are changed from this page only")
        return None

    def cookie(self, token: str | None) -> str | None:
        """What to set for a visitor who brought the token in the address; None where there is nothing to set."""
        if self._token is None or token is None or not _same(token, self._token):
            return None
        return f"{self._cookie}={self._secret}; Path=/; HttpOnly; SameSite=Strict; Max-Age=31536000"

    def _wrong_host(self, headers: Headers) -> Refusal | None:
        """A page elsewhere whose name was made to point here (DNS rebinding) asks for that name."""
        if not self._loopback:
            return None  # the token keeps it out: its visitors have no cookie for that name
        try:
            host = urlsplit(f"//{headers.get('Host', '')}").hostname or ""
        except ValueError:
            host = ""
        if is_loopback(host):
            return None
        return Refusal(HTTPStatus.MISDIRECTED_REQUEST, "ask for localhost: this page is for this machine alone")

    def _wrong_site(self, headers: Headers) -> Refusal | None:
        """Another site may link here, and no more than that."""
        if headers.get("Sec-Fetch-Site") in ("cross-site", "same-site") and headers.get("Sec-Fetch-Mode") != "navigate":
            return Refusal(HTTPStatus.FORBIDDEN, "another site asked for this")
        return None

    def _no_token(self, headers: Headers, token: str | None) -> Refusal | None:
        if self._token is None:
            return None
        scheme, _, bearer = headers.get("Authorization", "").partition(" ")
        brought = token if token is not None else bearer.strip() if scheme.lower() == "bearer" else None
        if brought is not None and _same(brought, self._token):
            return None
        if brought is None and _same(self._cookie_value(headers), self._secret):
            return None
        return Refusal(HTTPStatus.UNAUTHORIZED, "the token is wrong" if brought else "a token is needed")

    def _cookie_value(self, headers: Headers) -> str:
        try:
            found = SimpleCookie(headers.get("Cookie", "")).get(self._cookie)
        except CookieError:
            return ""
        return found.value if found is not None else ""


def _same(one: str, other: str) -> bool:
    """Whether two texts are equal, in a time that tells nothing of where they part or how long they are."""
    digests = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in (one, other)]
    return hmac.compare_digest(*digests)
