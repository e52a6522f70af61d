"""The page: whole by itself, escaped, with pictures where something fell, and nothing where nothing is known."""

from __future__ import annotations

import base64
import io
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
from PIL import Image

from clipdeploy.evaluate.page import render, shown_items, thumbnail
from clipdeploy.evaluate.records import Drop, Gap, GroupFigures
from clipdeploy.evaluate.report import furthest, gap_sentences, text_report
from tests.evaluate.results import LESS, RIGHT, made, pair


def parsed(page: str) -> ElementTree.Element:
    return ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))


def test_it_is_whole_by_itself() -> None:
    result = made()
    picture = thumbnail(np.full((224, 224, 3), 90, np.uint8))
    page = render(result, dict.fromkeys(shown_items(result), picture))
    tree = parsed(page)
    assert [image.get("src") for image in tree.iter("img")] == [picture]
    assert "<script" not in page and "http" not in page and "url(" not in page
    assert "prefers-color-scheme: dark" in page
    for words in (
        "openvino int8",
        "75.00 %",
        "+25.00",
        "cat/1.jpg",
        " 90.0 %",
        " 60.0 %",
        "cat now has 30.00 %",
        "as a table",
    ):
        assert words in page
    headings = [heading.text for heading in tree.iter("h2")]
    assert headings == ["backends and precisions", "worst drops of openvino int8", "classes", "confusions"]


def test_the_matrix_counts_what_is_right_and_leaves_out_what_is_not_there() -> None:
    tree = parsed(render(made(), {}))
    tips = [tip.text for tip in tree.iter("title") if tip.text and " called " in tip.text]
    reference, last = tips[:3], tips[3:]
    assert reference == ["cat called cat: 1 of 2", "cat called dog: 1 of 2", "dog called dog: 2 of 2"]
    assert last == ["cat called dog: 2 of 2", "dog called dog: 2 of 2"]


def test_names_cannot_break_out() -> None:
    evil = "<script>alert(1)</script>\"'&\x1b"
    drop = Drop(0, 0, 0, 1, 0.1, -0.1, evil, (evil, evil, evil), (0.5, 0.5, 0.5))
    result = made(drops=(drop,), classes=(evil, "dog", "fox"), dataset=evil, skipped={evil: evil}, notes=(evil,))
    page = render(result, {})
    parsed(page)
    assert "<script" not in page
    assert "\x1b" not in page and "\x1b" not in text_report(result)


def test_thumbnails_are_small_and_true() -> None:
    crop = np.zeros((320, 160, 3), np.uint8)
    crop[:, :, 0] = 200
    kind, _, data = thumbnail(crop).partition(",")
    assert kind == "data:image/jpeg;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.size == (72, 144)
    red, green, blue = image.getpixel((36, 72))  # type: ignore[misc]
    assert abs(red - 200) < 8 and green < 8 and blue < 8


def test_many_classes_have_no_matrix_and_many_skipped_are_counted() -> None:
    names = tuple(f"class {number}" for number in range(1000))
    recalls = tuple(number / 1000 for number in range(1000))
    result = made(
        classes=names,
        class_counts=(5,) * 1000,
        skipped={f"{n}.jpg": "broken" for n in range(60)},
        pairs=tuple(replace(one, per_class=recalls) for one in made().pairs),
    )
    page = render(result, {})
    assert 'class="matrix"' not in page
    assert "and 10 more" in page
    assert len(page) < 700_000


def test_one_pair_alone() -> None:
    alone = pair("onnxruntime", "fp32", RIGHT, per_class=(0.5, 1.0, None))
    page, text = render(made(pairs=(alone,)), {}), text_report(made(pairs=(alone,)))
    parsed(page)
    assert "same answer" not in page and "same answer" not in text
    assert "75.00 %" in text


def test_captions() -> None:
    metrics = {f"{side}_retrieval_recall@{k}": 0.5 for k in (1, 5, 10) for side in ("image", "text")}
    drop = Drop(1, 3, 3, 4, 0.02, -0.01, "1.jpg", ("a cat", "a cat", "a dog"))
    pairs = tuple(
        replace(one, metrics=metrics, per_class=(), confusions=(), drops=(drop,) if one.drops else ())
        for one in made().pairs
    )
    result = made(task="zeroshot_retrieval", classes=(), class_counts=(), templates=(), captions=8, pairs=pairs)
    page, text = render(result, {}), text_report(result)
    parsed(page)
    for told in (page, text):
        assert "text R@10" in told and "8 captions" in told and "a dog" in told
    assert "confusions" not in page


def test_the_furthest_below_is_the_one_that_is_shown() -> None:
    result = made()
    assert furthest(result).name == "openvino int8"
    assert furthest(made(pairs=result.pairs[:1])) == result.pairs[0]


def test_gaps_are_told_in_a_sentence_each() -> None:
    def grouped(low: float, high: float) -> tuple[GroupFigures, ...]:
        return (
            GroupFigures("indoor", 40, {"acc1": low}, (low - 0.1, low + 0.1)),
            GroupFigures("outdoor", 60, {"acc1": high}, (high - 0.1, high + 0.05)),
        )

    one, two, three = made().pairs
    gap = Gap("acc1", "outdoor", "indoor", 0.4, 0.1, 0.3, (0.1, 0.45), "widens")
    same = Gap("acc1", "outdoor", "indoor", 0.1, 0.1, 0.0, (0.0, 0.0), "no difference shown")
    pairs = (
        replace(one, groups=grouped(0.8, 0.9)),
        replace(two, groups=grouped(0.8, 0.9), gap=same),
        replace(three, metrics=LESS, groups=grouped(0.5, 0.9), gap=gap),
    )
    result = made(pairs=pairs)
    assert gap_sentences(result) == [
        "openvino int8: top-1 is best for outdoor and worst for indoor, 40.0 points apart; 10.0 points under PyTorch "
        "fp32. Change +30.0 (95 %: +10.0 to +45.0): wider than in the reference",
        "every group just as under PyTorch fp32: onnxruntime fp32",
    ]
    for told in (render(result, {}), text_report(result)):
        assert "wider than in the reference" in told and "80.00 % (70.0 to 90.0)" in told
