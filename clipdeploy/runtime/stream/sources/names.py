"""Addresses as they may be shown: without user, password or token."""

from __future__ import annotations

import re

# `//user:password@`, also where the password holds the signs that it should not: up to the last @ before the path, or,
# where what follows the colon is no port, up to the last @ at all.
_USER = re.compile(r"(?<=://)(?:[^\s/@:\"']*:(?!\d{1,5}(?:[/?#\s\"']|$))[^\s\"']*@|[^\s/\"']*@)")
_SECRET = (
    r"(?:user(?:name|[-_]?id|[-_]pw)?|usr|login(?:use|pas)?|pass(?:wd|word|code|phrase)?|pwd|pw|proxy[-_](?:id|pw)"
)
_SECRET += r"|token|(?:access|auth)[-_]?(?:token|key)|key|apikey|api[-_]key|auth|secret|sig|signature|streamid)"
_QUERY = re.compile(rf"([?&;]{_SECRET}=)[^&\s\"']*", re.IGNORECASE)
_PROPERTY = re.compile(rf"((?:^|\s){_SECRET}\s*=\s*)(?:\"[^\"]*\"|'[^']*'|\S+)", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """`text` with what stands for user and password in every address left out, and in every `user-pw=...`."""
    text = _USER.sub("", text)
    text = _QUERY.sub(r"\1***", text)
    return _PROPERTY.sub(r"\1***", text)
