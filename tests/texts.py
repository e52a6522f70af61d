"""Texts that break tokenizers: drawn from a seed, of every kind that has broken one."""

from __future__ import annotations

import random

SINGLE = [
    "",
    " ",
    "\t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0",
    "a photo of a cat.",
    "A PHOTO of a Cat, isn't it? They'll say I'm; you've; we'd; he's; can't; they're",
    "IT'S CAN'T WE'LL I'M YOU'VE THEY'RE HE'D",
    "'s 't 're 've 'm 'll 'd ' '' ''s 'S 'ſ 'ſt x'ſ",
    "<start_of_text>",
    "<end_of_text>",
    "a <start_of_text> b <end_of_text> c",
    "<<start_of_text> <start_of_text>> a<start_of_text>b <start_of_text<end_of_text>",
    "<START_OF_TEXT> <End_Of_Text> <ſtart_of_text> <ſTART_of_text>",
    "<|startoftext|> <|endoftext|> <s> </s> <pad>",
    "&lt;start_of_text&gt; &amp;lt;end_of_text&amp;gt;",
    "&amp; &amp;amp; &lt;b&gt; &nbsp;x &#65; &#x1F600; &#xD800; &#0; &#1114112; &unknown; &copy &eacute; &;",
    "<b>&amp;</b> &amp;",
    "\x00nul\x00inside\x00",
    "\x1b[31mred\x1b[0m \x07bell \x08back \x7f del \x80\x9f c1",
    "İstanbul IĞDIR ıi İ̇ ẞ ß ﬁ ﬀ Ǆ ǅ ǆ ΑΣ Σ ς K Å ſ",
    "e\u0301 é ȩ̂ Å Å a\u0345 α\u0345 ᾳ ͅ \u0301\u0302 q\u0307\u0323",
    "สวัสดีชาวโลก ภาพถ่ายของแมว กำ นํ้า",
    "中文 日本語テキスト 한국어 ｆｕｌｌ　ｗｉｄｔｈ １２３ ㍿ ㌀",
    "العَرَبِيَّة עִבְרִית \u202eright to left\u202c \u200f\u200e\u061c",
    "😀 👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪 ☺️ ❤️‍🔥 #️⃣ 🫠🪿",
    "zero\u200bwidth\u200cjoin\u200der\ufeffbom\u2060word \u180e\u00ad soft",
    "\u2000\u2001\u2002\u2003\u2009\u200a\u2028\u2029\u202f\u205f\u3000spaces",
    "0 1 12 1234567890 3.14 1e-5 ½ Ⅳ ⅷ ٣ ४ ² ① 〇 𝟙",
    "snake_case __dunder__ kebab-case C++ C# a/b\\c 100% $5 #tag @me ~ ` ^ | {} []",
    "don`t “quoted” ‘single’ «guillemets» … — – ´",
    "schÃ¶n voilÃ  le cafÃ© â€œmojibakeâ€\x9d Ã\xa0 ðŸ˜€ Ð¼Ð¾Ñ€Ðµ",
    "\ud83d\ude00 paired, \ud800 alone, \udfff alone, \ude00\ud83d swapped",
    "\U0010ffff\U000e0001\ue000\ufdd0\ufffe\uffff\ufffd private and none",
    "a" * 500,
    "word " * 400,
    "!" * 300,
    "😀" * 200,
    "supercalifragilisticexpialidociouspneumonoultramicroscopicsilicovolcanoconiosis",
    "line one\nline <two> &amp;\r\nline three &amp;\rfour\u2028five",
    "ꓘ ⲁ Ᲊ ᲊ Ɤ Ꟛ 𐵐 𖵀 𞤀 𞥃 Ა ა Ꭰ ꭰ",
]

_POOLS = [
    "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ ",
    "etaoin shrdlu ",
    "0123456789 .,-",
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ ",
    " \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u2003\u3000\u200b\ufeff",
    "".join(map(chr, range(0x20))) + "\x7f\x80\x81\x8d\x9d\x9f",
    "".join(map(chr, range(0xA0, 0x250))),
    "".join(map(chr, range(0x300, 0x370))),
    "".join(map(chr, range(0x370, 0x530))),
    "".join(map(chr, range(0x590, 0x700))),
    "".join(map(chr, range(0x900, 0xE80))),
    "".join(map(chr, range(0x2000, 0x2C00))),
    "".join(map(chr, range(0x3000, 0x3400))),
    "".join(map(chr, range(0x4E00, 0x9FFF, 7))),
    "".join(map(chr, range(0xAC00, 0xD7A4, 11))),
    "".join(map(chr, range(0xFB00, 0x10000))),
    "".join(map(chr, range(0x1F300, 0x1FB00))),
    "".join(map(chr, range(0x1D400, 0x1D800))),
    "ſKİıßẞΣσς'’`´ͅ",
]

_WORDS = [
    *("a photo of a", "dog", "Cat", "isn't", "they'll", "we've", "I'm", "he'd", "O'Reilly's", "'s", "'T"),
    *("<start_of_text>", "<end_of_text>", "<START_of_text>", "<ſtart_of_text>", "<end_of_text", "<|endoftext|>"),
    *("&amp;", "&lt;", "&amp;lt;", "&#39;", "&#x27;", "&nbsp;", "&eacute", "&#xD83D;", "<b>", "</w>", "!</w>"),
    *("snake_case", "3.14", "2026-11-21", "日本語", "ไทย", "العربية", "😀", "👩‍🚀", "\u0301", "\x00", "\ud800"),
    *("cafÃ©", "â€™", "Ã©", "ＡＢＣ", "ﬁne", "…", "\r\n", "\x1b[0m", "https://example.com/a?b=c&d=e"),
]


def nasty_texts(count: int, seed: int) -> list[str]:
    """`count` texts: the fixed ones first, then seeded mixtures of scripts, words, entities and whole Unicode."""
    draw = random.Random(seed)
    return [*SINGLE, *(_mixture(draw) for _ in range(max(0, count - len(SINGLE))))][:count]


def _mixture(draw: random.Random) -> str:
    parts = [_part(draw) for _ in range(draw.choice((1, 2, 3, 5, 8, 30)))]
    return draw.choice(("", " ", " ", "  ", "_", "\n")).join(parts)


def _part(draw: random.Random) -> str:
    kind = draw.random()
    if kind < 0.4:
        return draw.choice(_WORDS)
    if kind < 0.8:
        pool = draw.choice(_POOLS)
        return "".join(draw.choice(pool) for _ in range(draw.randint(1, 12)))
    if kind < 0.9:
        return "".join(chr(draw.randrange(0x110000)) for _ in range(draw.randint(1, 6)))
    word = draw.choice(_WORDS)
    return draw.choice((word.upper(), word.lower(), word.title(), word[::-1], word * 3))


_SPELLED = (
    *(
        "<|startoftext|>",
        "<|endoftext|>",
        "<start_of_text>",
        "<end_of_text>",
        "<s>",
        "</s>",
        "<pad>",
        "<unk>",
        "<mask>",
    ),
    *("<bos>", "<eos>", "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", "\u2581", "\uff1c\uff0f\uff53\uff1e"),
)


def encodable_texts(count: int, seed: int) -> list[str]:
    """`count` nasty texts without unpaired surrogates, two in five of them with special tokens spelled inside."""
    draw = random.Random(seed)
    texts = [
        text for text in nasty_texts(count * 5 // 4 + 100, seed) if not any("\ud800" <= c <= "\udfff" for c in text)
    ]
    for i in range(len(SINGLE), len(texts)):
        if i % 5 < 2:
            cut, token = draw.randint(0, len(texts[i])), draw.choice(_SPELLED)
            token = draw.choice((token, token, f" {token} ", token.upper(), token + token))
            texts[i] = texts[i][:cut] + token + texts[i][cut:]
    return texts[:count]
