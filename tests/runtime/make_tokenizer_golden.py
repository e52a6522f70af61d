"""Makes golden_tokens.json and golden_tokenizer.json from open_clip's tokenizer.

Run it as `python -m tests.runtime.make_tokenizer_golden`.

The tokenizer file keeps the whole pattern, but of the vocabulary only what the golden texts can reach: the single
bytes, the special tokens, and every merge whose result occurs in one of their words.
"""

from __future__ import annotations

import json
from pathlib import Path

from open_clip.tokenizer import SimpleTokenizer, bytes_to_unicode

from clipdeploy.export.tokens.open_clip import token_facts
from tests.texts import nasty_texts

FOLDER = Path(__file__).parent
COUNT, SEED = 260, 7


def main() -> None:
    tokenizer = SimpleTokenizer()
    texts = nasty_texts(COUNT, SEED)
    counts = [len(tokenizer.encode(text)) + 2 for text in texts]
    rows = [row[:count] for row, count in zip(tokenizer(texts).tolist(), counts, strict=True)]
    facts = zip(texts, rows, counts, strict=True)
    golden = [{"text": text, "ids": row, "count": count} for text, row, count in facts]
    (FOLDER / "golden_tokens.json").write_text(json.dumps(golden, indent=0) + "\n", encoding="ascii")
    content = json.loads(token_facts(tokenizer, name="clip").to_json())
    words = {
        "".join(tokenizer.byte_encoder[b] for b in word.encode()) + "</w>"
        for text in texts
        for word in tokenizer.pat.findall(tokenizer.clean_fn(text))
    }
    reach = "\n".join(words)
    merges = [merge for merge in content["model"]["merges"] if merge.replace(" ", "") in reach]
    letters = list(bytes_to_unicode().values())
    kept = {*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)}
    kept |= {"<start_of_text>", "<end_of_text>"}
    content["model"]["merges"] = merges
    content["model"]["vocab"] = {token: id_ for token, id_ in content["model"]["vocab"].items() if token in kept}
    (FOLDER / "golden_tokenizer.json").write_text(json.dumps(content, indent=0) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
