"""The demo's page: pictures with their answers, searches, and the parity of the bundle, in one file."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from clipdeploy.bundle import write_text

if TYPE_CHECKING:
    from clipdeploy.demo.outcome import DemoAnswer, DemoOutcome, DemoSearch

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #2a8f4c; --bad: #c43c35; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.lead { opacity: .75; margin-top: .3rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .8rem; }
figure { margin: 0; border: 1px solid var(--line); border-radius: .6rem; overflow: hidden; }
figure img { display: block; width: 100%; aspect-ratio: 1; object-fit: cover; }
figcaption { padding: .4rem .6rem; font-size: .85rem; }
.bar { height: .25rem; background: var(--good); } .wrong .bar { background: var(--bad); }
.wrong figcaption b { color: var(--bad); }
code { font-size: .9em; }
"""
_THUMBNAIL_PX = 240


def write_page(outcome: DemoOutcome, path: Path) -> None:
    """Write the page, whole or not at all."""
    write_text(path, _page(outcome))


def _page(outcome: DemoOutcome) -> str:
    answers = "".join(map(_answer, outcome.answers))
    searches = "".join(map(_search, outcome.searches))
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>clipdeploy demo</title><style>{_STYLE}</style>"
        f"<h1>{outcome.right} of {len(outcome.answers)} right, among {outcome.labels} labels</h1>"
        "<p class='lead'>Every picture shows a colour and a shape that were never trained on together. A bundle of "
        f"two ONNX graphs answered without PyTorch, in {outcome.classify_ms:.1f} ms a picture from file to label.</p>"
        f"<div class='grid'>{answers}</div>{searches}"
        "<h2>Proof</h2><p>The same bundle beside PyTorch, stage by stage: "
        "<a href='bundle/report/parity.html'>parity report</a>. "
        "Verify it anywhere with <code>clipdeploy verify</code>.</p></html>\n"
    )


def _answer(answer: DemoAnswer) -> str:
    shown = f"<b>{html.escape(answer.label)}</b> {answer.probability:.0%}"
    if not answer.right:
        shown += f"<br>shows {html.escape(answer.truth)}"
    kind = "right" if answer.right else "wrong"
    bar = f"<div class='bar' style='width:{answer.probability:.0%}'></div>"
    return f"<figure class='{kind}'>{_image(answer.path, answer.truth)}{bar}<figcaption>{shown}</figcaption></figure>"


def _search(search: DemoSearch) -> str:
    found = "".join(
        f"<figure>{_image(path, search.query)}<figcaption>cosine {cosine:.2f}</figcaption></figure>"
        for path, cosine in zip(search.paths, search.cosines, strict=True)
    )
    return f"<h2>Nearest to “{html.escape(search.query)}”</h2><div class='grid'>{found}</div>"


def _image(path: Path, alt: str) -> str:
    with Image.open(path) as picture:
        picture.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
        stream = io.BytesIO()
        picture.convert("RGB").save(stream, "JPEG", quality=85)
    data = base64.b64encode(stream.getvalue()).decode()
    return f"<img alt='{html.escape(alt, quote=True)}' src='data:image/jpeg;base64,{data}'>"
