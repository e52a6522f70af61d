"""Records are checked when made, and survive JSON unchanged."""

from __future__ import annotations

import json

import pytest

from clipdeploy.errors import InputError
from clipdeploy.spec import ModelSpec, PixelSpec, Precision, TensorSpec, TokenSpec, Tower, TowerSpec, from_dict, to_dict


def model_spec() -> ModelSpec:
    return ModelSpec(
        name="tiny",
        embed_dim=16,
        image=TowerSpec(
            Tower.IMAGE,
            "ViT",
            10,
            TensorSpec("pixel_values", "float32", ("batch", 3, 32, 32)),
            TensorSpec("image_embeds", "float32", ("batch", 16)),
        ),
        text=TowerSpec(
            Tower.TEXT,
            "Transformer",
            10,
            TensorSpec("input_ids", "int64", ("batch", 77)),
            TensorSpec("text_embeds", "float32", ("batch", 16)),
        ),
        pixels=PixelSpec(32, 32, "shortest", "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        tokens=TokenSpec(77, 49408, 49406, 49407, 0, "lower", "eot_argmax"),
        activation="gelu",
        logit_scale=100.0,
        logit_bias=0.0,
        probability="softmax",
    )


def test_a_model_survives_json() -> None:
    spec = model_spec()
    assert from_dict(ModelSpec, json.loads(json.dumps(to_dict(spec)))) == spec


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("embed_dim",), "16", "ModelSpec.embed_dim: expected int, got str '16'"),
        (("embed_dim",), True, "ModelSpec.embed_dim: expected int, got bool True"),
        (
            ("pixels", "resize"),
            "stretch",
            "pixels.resize: expected one of 'shortest', 'squash', got 'stretch'",
        ),
        (("pixels", "mean"), [0.5], "ModelSpec.pixels.mean: expected 3 values, got 1"),
        (("image", "tower"), "visual", "ModelSpec.image.tower: expected one of 'image', 'text', got 'visual'"),
        (("tokens", "start_id"), "a", "ModelSpec.tokens.start_id: expected int, got str 'a'"),
        (("logit_scale",), 0.0, "logit_scale must be finite and positive"),
        (("pixels", "std"), [0.0, 1.0, 1.0], "std must be positive"),
    ],
)
def test_a_wrong_value_is_named(path: tuple[str, ...], value: object, message: str) -> None:
    data = to_dict(model_spec())
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(InputError) as caught:
        from_dict(ModelSpec, data)
    assert message in str(caught.value)


def test_unknown_and_missing_keys_are_named() -> None:
    data = to_dict(model_spec())
    data["colour"] = data.pop("activation")
    with pytest.raises(InputError, match="unknown key 'colour', missing key 'activation'"):
        from_dict(ModelSpec, data)


def test_graph_names() -> None:
    assert Tower.IMAGE.graph_name() == "visual.onnx"
    assert Tower.TEXT.graph_name(Precision.INT8) == "textual_int8.onnx"


def test_an_unknown_precision_lists_the_known() -> None:
    with pytest.raises(InputError, match="'fp64'; expected one of fp32, fp16, bf16, int8, fp8"):
        Precision.parse("fp64")
