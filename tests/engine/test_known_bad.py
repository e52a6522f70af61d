"""The table of what some versions compile wrongly: its rows, and whom they concern."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("onnx_ir", reason="checking graphs needs the extra: pip install 'clipdeploy[export]'")

from clipdeploy.engine.targets.known_bad import KNOWN_BAD, finding, look_up
from clipdeploy.engine.targets.patterns import PATTERNS
from clipdeploy.engine.targets.rewrites import REWRITES
from clipdeploy.engine.targets.target import OLDEST, parse_target
from tests.engine.attention_graphs import heads, model_text, plain, read, sdpa


def test_each_row_is_whole() -> None:
    assert len({row.name for row in KNOWN_BAD}) == len(KNOWN_BAD)
    for row in KNOWN_BAD:
        assert row.pattern in PATTERNS and (row.also is None or row.also in PATTERNS)
        assert row.threads and all(re.fullmatch(r"https://github\.com/\S+", thread) for thread in row.threads)
        assert (row.way in REWRITES) == (row.remedy == "rewrite")
        for backend, (first, right) in row.versions.items():
            assert first >= OLDEST[backend] and (right is None or right > first)


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("tensorrt 10.3, sm_87", set()),
        ("tensorrt 10.4, sm_86", {"scale-on-both-sides"}),
        ("tensorrt 10.7.0.23, sm_89", {"scale-on-both-sides"}),
        ("tensorrt 10.8, sm_89", set()),
        ("tensorrt 10.13, sm_110", {"single-row-query"}),
        ("tensorrt 11.4, sm_89", {"single-row-query"}),
        ("tensorrt-rtx 1.0, sm_89", {"single-row-query"}),
    ],
)
def test_versions(target: str, names: set[str]) -> None:
    assert {row.name for row, _ in look_up(sdpa(rows=1, columns=7), parse_target(target))} == names


def test_gpus() -> None:
    half = plain(rows=5, dtype="float16")
    assert {row.name for row, _ in look_up(half, parse_target("tensorrt 10.16, sm_120"))} == {"half-attention-sm120"}
    assert look_up(half, parse_target("tensorrt 10.16, sm_89")) == []
    assert look_up(plain(rows=5), parse_target("tensorrt 10.16, sm_120")) == []


def test_the_operator_is_never_left() -> None:
    text = model_text("y = Attention (q, k, v)", inputs=heads(5, 5), outputs="float[N,2,5,4] y", opset=23)
    for target in ("tensorrt 10.3, sm_87", "tensorrt 11.5, sm_120", "tensorrt-rtx 1.7, sm_86"):
        assert [row.name for row, _ in look_up(read(text), parse_target(target))] == ["attention-operator"]


def test_what_is_told() -> None:
    target = parse_target("tensorrt 10.16, sm_120")
    rows = {row.name: row for row in KNOWN_BAD}
    warned = finding(rows["half-attention-sm120"], ("a",), target)
    assert warned.state == "note" and "/issues/4837" in warned.message
    assert warned.fix is not None and "--backend tensorrt " in warned.fix
    refused = finding(rows["rotary-vit"], ("a", "b", "c", "d"), target)
    assert refused.state == "bad" and refused.message.endswith("here at a, b, c and 1 more")
    left = finding(rows["attention-operator"], ("a",), target)
    assert left.state == "bad" and left.fix is not None and "is not rewritten" in left.fix
