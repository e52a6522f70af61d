from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="building engines needs the extra: pip install 'clipdeploy[quantize]'")

from clipdeploy.engine.builder.outline import read_outline
from clipdeploy.engine.builder.profiles import check_profiles, parse_batch, parse_batches
from clipdeploy.engine_key import Profile
from clipdeploy.errors import EngineError, InputError
from tests.engine.graphs import write_graph


@pytest.mark.parametrize(
    ("text", "profile"),
    [("1,8,32", Profile(1, 8, 32)), (" 1, 8 ,32 ", Profile(1, 8, 32)), ("4", Profile(4, 4, 4))],
)
def test_a_batch(text: str, profile: Profile) -> None:
    assert parse_batch(text) == profile


@pytest.mark.parametrize("text", ["", "1,8", "1,8,32,64", "a,b,c", "1.5", "-1,2,3", "²"])
def test_no_batch(text: str) -> None:
    with pytest.raises(InputError, match="--batch 1,8,32"):
        parse_batch(text)


@pytest.mark.parametrize("text", ["0,8,32", "0", "8,4,32", "1,33,32"])
def test_sizes_out_of_order_or_below_one(text: str) -> None:
    with pytest.raises(InputError, match="1 <= MIN <= OPT <= MAX"):
        parse_batch(text)


def test_several_batches_are_in_order_and_each_once() -> None:
    assert parse_batches(["2,8,32", "1"]) == (Profile(1, 1, 1), Profile(2, 8, 32))
    with pytest.raises(InputError, match=r"1,1,1 is given twice"):
        parse_batches(["1", "1,1,1"])


def test_a_graph_of_any_batch_takes_them_all(tmp_path: Path) -> None:
    outline = read_outline(write_graph(tmp_path / "any.onnx"))
    tensor = check_profiles((Profile(1, 1, 1), Profile(2, 8, 512)), outline)
    assert (tensor.name, tensor.dtype, tensor.shape) == ("x", "float", ("batch", 8))


def test_a_fixed_batch(tmp_path: Path) -> None:
    outline = read_outline(write_graph(tmp_path / "four.onnx", batch=4))
    check_profiles((Profile(4, 4, 4),), outline)
    with pytest.raises(
        EngineError, match=r"four.onnx takes batches of 4 and no other, asked for 1,4,8[\s\S]*--batch 4,"
    ):
        check_profiles((Profile(1, 4, 8),), outline)


def test_only_the_batch_may_vary(tmp_path: Path) -> None:
    outline = read_outline(write_graph(tmp_path / "wide.onnx", width="width"))
    with pytest.raises(
        EngineError, match=r"only the batch of wide.onnx may vary, but x also leaves axis 1 \(width\) open"
    ):
        check_profiles((Profile(1, 1, 1),), outline)


def test_one_input_and_one_profile_at_least(tmp_path: Path) -> None:
    two = read_outline(write_graph(tmp_path / "two.onnx", inputs=("x", "other")))
    with pytest.raises(EngineError, match="must have one input, it has: x, other"):
        check_profiles((Profile(1, 1, 1),), two)
    with pytest.raises(InputError, match="needs a batch profile"):
        check_profiles((), two)
