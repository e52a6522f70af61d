"""The cleaning rules, and the shortcut around ftfy."""

from __future__ import annotations

import html
import random
import string

import ftfy
import pytest

from clipdeploy.runtime import cleaning
from clipdeploy.runtime.cleaning import clean
from tests.texts import nasty_texts


def test_shortcut_changes_nothing() -> None:
    """Plain ASCII skips ftfy and the entities: they must have nothing to do there."""
    draw = random.Random(11)
    signs = string.printable + "&" * 3
    texts = ["".join(draw.choice(signs) for _ in range(draw.randint(0, 40))) for _ in range(6000)]
    texts += nasty_texts(1500, seed=12)
    skipped = 0
    for text in texts:
        mended = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
        assert cleaning._mend(text) == mended, text
        skipped += text.isascii() and text.isprintable() and "&" not in text
    assert skipped > 1000


@pytest.mark.parametrize(
    ("text", "whitespace", "lower", "canonicalize"),
    [
        ("  A  Red\tCircle. ", "A Red Circle.", "a red circle.", "a red circle"),
        ("Fish &amp;amp; Chips", "Fish & Chips", "fish & chips", "fish chips"),
        ("snake_case, C++", "snake_case, C++", "snake_case, c++", "snake case c"),
        ("schÃ¶n\x00", "schön", "schön", "schön"),
        ("_._", "_._", "_._", ""),
        ("", "", "", ""),
    ],
)
def test_rules(text: str, whitespace: str, lower: str, canonicalize: str) -> None:
    assert clean(text, "whitespace") == whitespace
    assert clean(text, "lower") == lower
    assert clean(text, "canonicalize") == canonicalize
