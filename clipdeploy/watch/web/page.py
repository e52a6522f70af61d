"""The page as one HTML document: markup, style and script are files beside this one; nothing comes from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence
from importlib.resources import files
from string import Template

_DOOR = """<form><label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button type="submit">Open</button></form>"""


class Page:
    """What visitors get, and the policy that lets nothing else in.

    Args:
        title: of the page.
        cameras: names of the sources.
        labels_change: whether labels can be typed.

    Attributes:
        html: the document, UTF-8.
        policy: its Content-Security-Policy: its own style and script, by their hashes, and its own server.
    """

    def __init__(self, title: str, cameras: Sequence[str], *, labels_change: bool) -> None:
        style, script = _read("page.css"), _read("page.js")
        name = cameras[0] if len(cameras) == 1 else f"{len(cameras)} cameras"
        self._title = html.escape(f"{title} · {name}")
        self._style = style
        self.html = (
            Template(_read("page.html"))
            .substitute(title=self._title, style=style, script=script, change="yes" if labels_change else "no")
            .encode("utf-8", "replace")
        )
        self.policy = "; ".join(
            (
                "default-src 'none'",
                f"script-src {_hash(script)}",
                f"style-src {_hash(style)}",
                "img-src 'self' data:",
                "connect-src 'self'",
                "form-action 'self'",
                "base-uri 'none'",
                "frame-ancestors 'none'",
            )
        )

    def door(self, message: str) -> bytes:
        """What a visitor without the token gets: a place to type it."""
        head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        body = f"<header><h1>clipdeploy watch</h1></header><main><section><p>{html.escape(message)}: it stands at "
        body += f"the end of the address that clipdeploy watch printed.</p>{_DOOR}</section></main>"
        text = f'<!DOCTYPE html><html lang="en"><head>{head}<title>clipdeploy watch</title><style>{self._style}</style>'
        return f"{text}</head><body>{body}</body></html>".encode()


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()
    return f"'sha256-{digest}'"
