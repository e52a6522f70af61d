"""HTML that cannot be forgotten to be escaped: text is escaped, `Html` is not, and only `el` makes `Html`."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TypeAlias

_VOID = frozenset({"meta", "img"})
_BARE = frozenset({"circle", "rect", "line"})


class Html(str):
    """Markup, as against text."""


Child: TypeAlias = "str | Html | Iterable[Child] | None"


def el(tag: str, *children: Child, **attributes: str | float | None) -> Html:
    """An element. `class_` is class, `_` in a name stands for `-`; an attribute that is None is left out."""
    pairs = ((name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items() if value is not None)
    head = tag + "".join(f' {name}="{html.escape(_number(value))}"' for name, value in pairs)
    if tag in _VOID or (tag in _BARE and not children):
        return Html(f"<{head} />")
    return Html(f"<{head}>{''.join(_flat(children))}</{tag}>")


def style(css: str) -> Html:
    """A style element of our own CSS, which holds no markup."""
    return Html(f"<style>{css}</style>")


def page(title: str, css: str, *body: Child) -> str:
    """A whole document, well-formed as XML too."""
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        style(css),
    )
    return f"<!DOCTYPE html>\n{el('html', head, el('body', *body), lang='en')}\n"


def shown(text: str) -> str:
    """Text for people: control characters as their pictures, lone surrogates as `?`, the empty text as a word."""
    if not text:
        return "(empty text)"
    pictures = "".join(chr(0x2400 + ord(c)) if ord(c) < 32 else "␡" if 0x7F <= ord(c) < 0xA0 else c for c in text)
    return pictures.replace("￾", "?").replace("￿", "?").encode("utf-8", "replace").decode("utf-8")


def _flat(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, Html):
            yield child
        elif isinstance(child, str):
            yield html.escape(shown(child) if child else "")
        else:
            yield from _flat(child)


def _number(value: str | float) -> str:
    return (
        shown(value) if isinstance(value, str) and value else f"{value:.5g}" if isinstance(value, float) else str(value)
    )
