"""Proof that a written tokenizer gives the checkpoint's ids, on texts of every kind that has broken one."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipdeploy.errors import CheckpointError
from clipdeploy.export.tokens.facts import TokenFacts
from clipdeploy.runtime.tokenizer import Tokenizer

Reference = Callable[[list[str]], npt.NDArray[np.int64]]
"""The checkpoint's own tokenizer: N texts to `(N, L) int64`."""

_TEXTS = (
    *("", " ", "a", "7", "a photo of a cat", "A PHOTO of a Cat.", "  tabs\tand\nlines\r\n   between  "),
    *("long " * 300, "x" * 700, "!?" * 150, "fish &amp; chips &lt;b&gt; &#39;x&#39;"),
    *("snake_case C++ a/b\\c 100% $5 #tag @me ~^|{}[]", "It's 3 o'clock, they'll say 'tis; we've IT'S"),
    *("don’t “quote” … — «»", "3.14 1e-5 ½ Ⅸ ٣ ²", "\x00nul\x00inside\x00", "\x1b[31mred\x1b[0m\x7f\x80\x9f"),
    *("\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0 x", "\u2003a\u3000b\u2028c\u200bd\ufeffe\u180e\xadf"),
    *("e\u0301 é q\u0307\u0323 a\u0345 \u0301\u0302 한 ﬁﬀ Å Ａｂ１", "İstanbul Iı ẞß Ǆǅǆ", "ΑΣ Σ σς ΟΔΟΣ"),
    *("Москва ночью", "กำ สวัสดีชาวโลก นํ้า", "العَرَبِيَّة עִבְרִית \u202eleft\u202c", "हिन्दी மிழ்"),
    *("中文，日本語テキスト。한국어 ㈱", "😀 👨\u200d👩\u200d👧 🏳️\u200d🌈 👍🏽 🇩🇪", "▁▁under ▁ bars▁"),
    *("\U0010ffff\U000e0001\ue000\ufffe�", "＜／ｓ＞ ﹤s﹥"),
)
_SPECIAL = (
    *("<|startoftext|>", "<|endoftext|>", "<start_of_text>", "<end_of_text>", "<s>", "</s>", "<pad>", "<unk>"),
    *("<mask>", "<bos>", "<eos>", "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", "<extra_id_0>", "</w>"),
)
_DRAWN = 160


def prove(facts: TokenFacts, reference: Reference, *, specials: Sequence[str], name: str, fix: str) -> None:
    """Compare the ids that the runtime makes of the written file with the reference's.

    Args:
        facts: what is written.
        reference: the checkpoint's own tokenizer.
        specials: its special tokens, which texts may spell.
        name: of the checkpoint.
        fix: what the user can do.

    Raises:
        CheckpointError: they differ, or the reference fails; the first text is named.
    """
    texts = probe_texts(specials)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(facts.to_json(), encoding="utf-8")
        ours = Tokenizer(path, facts.spec(vocab_size=facts.vocab_size, pooling="other"))(texts)
    theirs = reference(texts)
    if theirs.shape != ours.shape:
        raise CheckpointError(
            f"{name}: the tokenizer gives ids of shape {theirs.shape}, expected {ours.shape}", fix=fix
        )
    different = np.flatnonzero((ours != theirs).any(axis=1))
    if len(different):
        i = int(different[0])
        raise CheckpointError(
            f"{name}: the tokenizer does more than its tokenizer.json says, so its ids cannot be kept: "
            f"{len(different)} of {len(texts)} texts differ, first {texts[i]!r:.80}: "
            f"{_shown(theirs[i])} became {_shown(ours[i])}",
            fix=fix,
        )


def probe_texts(specials: Sequence[str]) -> list[str]:
    """A few hundred texts: those above, special tokens in every position and case, and seeded mixtures."""
    spelled = [*dict.fromkeys((*(token for token in specials if token), *_SPECIAL))][:48]
    texts = [*_TEXTS]
    for token in spelled:
        texts += [token, f"a {token} B", f"a{token}b", f" {token} {token}{token}\t", token.upper(), token[:-1] + " >"]
    draw = random.Random(20261121)
    words = [*(word for text in _TEXTS for word in text.split(" ")[:12]), *spelled]
    for _ in range(_DRAWN):
        parts = (draw.choice(words) for _ in range(draw.choice((1, 2, 3, 5, 12))))
        texts.append(draw.choice(("", " ", " ", "  ", "\n")).join(parts))
    return texts


def specials_of(content: str | dict[str, Any]) -> list[str]:
    """The added tokens of a tokenizer.json."""
    read = json.loads(content) if isinstance(content, str) else content
    return [str(token["content"]) for token in read.get("added_tokens", [])]


def _shown(row: npt.NDArray[np.int64]) -> str:
    return f"{row[:12].tolist()}"
