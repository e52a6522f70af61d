"""The rules that a checkpoint's tokenizer applies to a text before it splits it into words.

Each rule keeps the order of open_clip's own (mend broken encoding, undo HTML entities twice, then spaces and
case), because the order shows in the ids.
"""

from __future__ import annotations

import html
import string

from clipdeploy.spec import TextCleaning

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def clean(text: str, cleaning: TextCleaning) -> str:
    """`text` as the tokenizer's splitter sees it.

    Args:
        text: any string; unpaired surrogates become U+FFFD, as in open_clip.
        cleaning: `whitespace` mends and joins on single spaces; `lower` also lowers the case; `canonicalize`
            turns underscores into spaces, drops ASCII punctuation and lowers the case; `none` changes nothing.
    """
    if cleaning == "none":
        return text
    text = _mend(text)
    if cleaning == "canonicalize":
        text = text.replace("_", " ").translate(_NO_PUNCTUATION).lower()
        return " ".join(text.split())
    text = " ".join(text.split())
    return text.lower() if cleaning == "lower" else text


def _mend(text: str) -> str:
    """`text` with broken encodings, entities, control and terminal codes put right."""
    # Every rule of ftfy looks for a control code, a character beyond ASCII or an entity's `&`; the import of ftfy
    # and its rules cost far more than this look.
    if text.isascii() and text.isprintable() and "&" not in text:
        return text.strip()
    import ftfy

    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()
