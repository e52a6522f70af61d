"""Every doubt about a checkpoint is one clear error that names the fix."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("open_clip", reason="reading checkpoints needs the extra: pip install 'clipdeploy[export]'")

import open_clip
import torch

from clipdeploy.errors import CheckpointError
from tests import checkpoints


def refusal(*args: Any, **kwargs: Any) -> CheckpointError:
    """The error of a load that must fail."""
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(*args, **kwargs)
    assert caught.value.fix, f"no fix is named: {caught.value.message}"
    return caught.value


def with_state(folder: Path, change: Any) -> Path:
    """A checkpoint folder whose weights went through `change`."""
    state = dict(checkpoints.make_model().state_dict())
    return checkpoints.write_checkpoint(folder / "c", state=change(state) or state)


# -- what is named


@pytest.mark.parametrize(("name", "near"), [("ViT-B-3", "ViT-B-32"), ("vit-b-32", "ViT-B-32"), ("RN5O", "RN50")])
def test_unknown_architecture_names_the_nearest(name: str, near: str) -> None:
    error = refusal(name, random_weights=True)
    assert repr(name) in error.message
    assert near in str(error.fix)


def test_unknown_architecture_near_nothing() -> None:
    assert "hf-hub:" in str(refusal("zzzzqqqq").fix)


def test_no_weights_lists_the_tags() -> None:
    error = refusal("ViT-B-32")
    assert error.message == "ViT-B-32: no weights are named"
    assert "laion2b_s34b_b79k" in str(error.fix)
    assert "--random-weights" in str(error.fix)
    assert "openai" in str(error.fix).split("(")[1]
    assert "ViT-B-32-quickgelu" in str(error.fix)


def test_no_weights_of_an_architecture_without_tags() -> None:
    assert "no published weights" in str(refusal("ViT-M-32").fix)


def test_unknown_tag_lists_the_tags() -> None:
    error = refusal("ViT-B-32", pretrained="laion2b_s34b")
    assert "'laion2b_s34b' is neither a tag" in error.message
    assert "laion2b_s34b_b79k" in str(error.fix)


def test_weights_and_random_weights() -> None:
    assert "both" in refusal("ViT-B-32", pretrained="openai", random_weights=True).message


@pytest.mark.parametrize("model", ["hf-hub:org/repo", "local-dir:folder"])
def test_pretrained_beside_a_source_that_has_its_own(model: str) -> None:
    assert "brings its own weights" in refusal(model, pretrained="openai").message


@pytest.mark.parametrize("model", ["hf-hub:", "hf-hub:repo", "hf-hub:a/b/c", "hf-hub:/b"])
def test_malformed_repository(model: str) -> None:
    assert "names no repository" in refusal(model).message


def test_missing_folder_file_and_configuration(tmp_path: Path) -> None:
    assert "does not exist" in refusal("local-dir:/no/such/folder").message
    assert "open_clip_config.json" in refusal(tmp_path).message
    assert "does not exist" in refusal("ViT-B-32", pretrained=tmp_path / "w.pt").message
    assert "is a folder" in refusal("ViT-B-32", pretrained=tmp_path).message


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"model_cfg": {"embed_dim": 8}}'])
def test_broken_configuration(tmp_path: Path, text: str) -> None:
    (tmp_path / "open_clip_config.json").write_text(text, encoding="utf-8")
    assert "open_clip_config.json" in refusal(tmp_path).message


def test_configuration_that_open_clip_cannot_build(tmp_path: Path) -> None:
    config = checkpoints.model_config(vision_cfg={"wheels": 4})
    error = refusal(checkpoints.write_checkpoint(tmp_path / "c", config, weights=None), random_weights=True)
    assert "wheels" in error.message


def test_folder_without_or_with_too_many_weights(tmp_path: Path) -> None:
    folder = checkpoints.write_checkpoint(tmp_path / "c", weights=None)
    assert "found: none" in refusal(folder).message
    state = checkpoints.make_model().state_dict()
    for name in ("epoch_1.pt", "epoch_2.pt"):
        checkpoints.save_state(folder / name, state)
    assert "epoch_1.pt, epoch_2.pt" in refusal(folder).message
    (folder / "epoch_1.pt").unlink()
    assert checkpoints.load(folder).spec.name == "c"


# -- activation


@pytest.mark.parametrize("tag", ["openai", "laion400m_e32", "metaclip-fullcc"])
def test_quick_gelu_tag_in_a_gelu_architecture(tag: str) -> None:
    error = refusal("ViT-B-32", pretrained=tag)
    assert "ViT-B-32 uses GELU" in error.message
    assert "QuickGELU" in error.message
    assert error.fix == f"use the architecture ViT-B-32-quickgelu with --pretrained {tag}"


def test_gelu_tag_in_a_quick_gelu_architecture() -> None:
    error = refusal("ViT-B-32-quickgelu", pretrained="laion2b_s34b_b79k")
    assert "trained with GELU" in error.message
    assert error.fix == "use the architecture ViT-B-32 with --pretrained laion2b_s34b_b79k"


def test_mismatch_without_a_twin_points_to_the_repository() -> None:
    assert "hf-hub:laion/" in str(refusal("roberta-ViT-B-32", pretrained="laion2b_s12b_b32k").fix)


def test_every_mismatch_that_open_clip_would_warn_of_is_an_error() -> None:
    pairs = [
        (name, tag)
        for name, tag in open_clip.list_pretrained()
        if bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu"))
        != bool(open_clip.get_model_config(name).get("quick_gelu"))
    ]
    assert len(pairs) > 20
    for name, tag in pairs:
        assert "GELU" in refusal(name, pretrained=tag).message


@pytest.mark.parametrize("archive", [True, False], ids=["torchscript", "state_dict"])
def test_openai_weights_in_a_gelu_architecture(tmp_path: Path, archive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.pt"
    if archive:
        checkpoints.write_openai(path)
    else:
        facts = {name: torch.tensor(1) for name in ("input_resolution", "context_length", "vocab_size")}
        checkpoints.save_state(path, {**checkpoints.make_model().state_dict(), **facts})
    checkpoints.register(monkeypatch, "tiny")
    error = refusal("tiny", pretrained=path, preprocessing="openai")
    assert "OpenAI's own, trained with QuickGELU" in error.message
    checkpoints.register(monkeypatch, "tiny-quickgelu", checkpoints.model_config(quick_gelu=True))
    assert refusal("tiny", pretrained=path, preprocessing="openai").fix == "use tiny-quickgelu"


def test_file_called_like_published_quick_gelu_weights(tmp_path: Path) -> None:
    path = tmp_path / "vit_b_32-quickgelu-laion400m_e32-46683a32.pt"
    path.touch()
    error = refusal("ViT-B-32", pretrained=path)
    assert "ViT-B-32-quickgelu" in str(error.fix)
    assert "rename" in str(error.fix)


# -- weights files


class Danger:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("form", ["torch", "pickle-2", "pickle-4"])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    proof = tmp_path / "proof"
    folder = checkpoints.write_checkpoint(tmp_path / "c", weights=None)
    path = folder / "open_clip_pytorch_model.bin"
    content = {"state_dict": checkpoints.make_model().state_dict(), "extra": Danger(proof)}
    if form == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps({"extra": Danger(proof)}, protocol=int(form[-1])))
    error = refusal(folder)
    expected = "is not a file of tensors" if form == "pickle-4" else "could run code, so it is refused"
    assert expected in error.message
    assert "safetensors" in str(error.fix)
    assert not proof.exists()


def test_code_in_a_torchscript_archive_is_refused_and_not_run(tmp_path: Path) -> None:
    import zipfile

    proof = tmp_path / "proof"
    folder = checkpoints.write_checkpoint(tmp_path / "c", weights=None)
    with zipfile.ZipFile(folder / "model.pth", "w") as archive:
        archive.writestr("m/constants.pkl", b"")
        archive.writestr("m/data.pkl", pickle.dumps(Danger(proof), protocol=2))
    error = refusal(folder)
    assert "cannot be read safely" in error.message
    assert "Path" in error.message or "touch" in error.message or "getattr" in error.message
    assert not proof.exists()


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_damaged_file(tmp_path: Path, name: str, damage: str) -> None:
    folder = checkpoints.write_checkpoint(tmp_path / "c", weights=name)
    whole = (folder / name).read_bytes()
    half = whole[: len(whole) // 2]
    (folder / name).write_bytes({"truncated": half, "garbage": b"not weights at all\n" * 9, "empty": b""}[damage])
    error = refusal(folder)
    assert name in error.message
    assert "again" in str(error.fix)


@pytest.mark.parametrize("name", ["weights.dat", "weights"])
def test_other_kinds_of_file(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.register(monkeypatch, "tiny")
    (tmp_path / name).write_bytes(b"1234")
    error = refusal("tiny", pretrained=tmp_path / name, preprocessing="openai")
    assert ".safetensors" in error.message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([torch.zeros(1)], "a list of tensors without names"),
        (["a"], "holds list"),
        ({}, "not a state dict"),
        ({"model": {"a": [0.0]}, "epoch": 3}, "2 entries (model, epoch)"),
        ({"module.a": torch.zeros(1), "b": torch.zeros(1)}, "1 of 2 names"),
    ],
)
def test_file_without_a_state_dict(tmp_path: Path, content: Any, says: str) -> None:
    folder = checkpoints.write_checkpoint(tmp_path / "c", weights=None)
    torch.save(content, folder / "weights.pt")
    assert says in refusal(folder).message


# -- weights that do not fit


def test_missing_weights(tmp_path: Path) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        for name in [name for name in state if name.startswith("visual.transformer")]:
            del state[name]

    error = refusal(with_state(tmp_path, change))
    assert "24 missing (visual.transformer.resblocks.0.ln_1.weight, " in error.message
    assert ", ...)" in error.message
    assert "incomplete" in str(error.fix)


def test_unexpected_weights(tmp_path: Path) -> None:
    error = refusal(with_state(tmp_path, lambda s: {**s, "head.weight": torch.zeros(3), "head.bias": torch.zeros(1)}))
    assert "2 unexpected (head.bias, head.weight)" in error.message


def test_names_of_transformers(tmp_path: Path) -> None:
    def change(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {n.replace("visual.", "vision_model.").replace("ln_", "layer_norm"): t for n, t in state.items()}

    error = refusal(with_state(tmp_path, change))
    assert "layout of Hugging Face transformers" in str(error.fix)


@pytest.mark.parametrize("name", ["visual.positional_embedding", "positional_embedding"])
def test_positions_are_never_stretched(tmp_path: Path, name: str) -> None:
    """open_clip interpolates these, with a line in the log."""

    def change(state: dict[str, torch.Tensor]) -> None:
        state[name] = torch.randn(26 if "visual" in name else 30, state[name].shape[1])

    error = refusal(with_state(tmp_path, change))
    assert f"{name} is (" in error.message
    assert "never stretched" in str(error.fix)


def test_wrong_shape(tmp_path: Path) -> None:
    error = refusal(with_state(tmp_path, lambda s: {**s, "text_projection": torch.zeros(64, 16)}))
    assert "1 wrong shapes (text_projection is (64, 16), expected (64, 24))" in error.message


def test_missing_logit_bias_is_never_made_up(tmp_path: Path) -> None:
    """open_clip fills it with zero, which changes what the probabilities mean."""
    config = checkpoints.model_config(init_logit_bias=-10.0)
    state = checkpoints.make_model().state_dict()
    error = refusal(checkpoints.write_checkpoint(tmp_path / "c", config, state=state))
    assert "1 missing (logit_bias)" in error.message
    assert "sigmoid" in str(error.fix)


def test_logit_bias_in_a_softmax_architecture(tmp_path: Path) -> None:
    error = refusal(with_state(tmp_path, lambda s: {**s, "logit_bias": torch.tensor(-10.0)}))
    assert "1 unexpected (logit_bias)" in error.message
    assert "init_logit_bias" in str(error.fix)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_values_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        state["ln_final.weight"] = state["ln_final.weight"].double()
        state["ln_final.weight"][5] = value

    error = refusal(with_state(tmp_path, change))
    assert "1 weights (ln_final.weight) hold NaN or infinity" in error.message


def test_logit_scale_that_overflows(tmp_path: Path) -> None:
    error = refusal(with_state(tmp_path, lambda s: {**s, "logit_scale": torch.tensor(1000.0)}))
    assert "logit_scale must be finite" in error.message


# -- preprocessing


@pytest.mark.parametrize(
    ("stated", "says"),
    [
        ({"resize_mode": "longest"}, "resize_mode 'longest'"),
        ({"resize_mode": "stretch"}, "resize_mode 'stretch'"),
        ({"interpolation": "random"}, "interpolation 'random'"),
        ({"interpolation": "nearest"}, "interpolation 'nearest'"),
        ({"crop_pct": 0.9}, "asks for crop_pct"),
        ({"mean": None}, "does not state mean"),
        ({"mean": [0.5, 0.5]}, "wrong mean or std"),
        ({"mean": 0}, "wrong mean or std"),
        ({"std": [0.5, 0.0, 0.5]}, "wrong mean or std"),
        ({"size": 64}, "size 64, but the image tower takes 32x32 px"),
        ({"size": "big"}, "size 'big'"),
        ({"mode": "BGR"}, "mode 'BGR'"),
    ],
)
def test_preprocessing_that_is_not_known(tmp_path: Path, stated: dict[str, Any], says: str) -> None:
    folder = checkpoints.write_checkpoint(tmp_path / "c", preprocess={**checkpoints.PREPROCESS, **stated})
    error = refusal(folder)
    assert says in error.message
    assert "open_clip_config.json" in str(error.fix)


def test_shortest_side_of_a_picture_that_is_no_square(tmp_path: Path) -> None:
    config = checkpoints.model_config(vision_cfg={"image_size": [32, 48]})
    folder = checkpoints.write_checkpoint(tmp_path / "bicubic", config)
    assert checkpoints.load(f"local-dir:{folder}").spec.pixels.width == 48
    stated = {**checkpoints.PREPROCESS, "interpolation": "bilinear"}
    folder = checkpoints.write_checkpoint(tmp_path / "bilinear", config, preprocess=stated)
    assert "where open_clip itself takes bicubic" in refusal(folder).message


def test_preprocessing_is_never_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoints.write_checkpoint(tmp_path / "c", preprocess=None)
    error = refusal(folder)
    assert "nothing states how pictures were prepared" in error.message
    assert "--preprocessing" in str(error.fix)
    assert checkpoints.load(folder, preprocessing="siglip").spec.pixels.resize == "squash"
    path = checkpoints.save_state(tmp_path / "w.pt", checkpoints.make_model().state_dict())
    two = {"one": {}, "other": {"mean": (0.5,) * 3}}
    checkpoints.register(monkeypatch, "tiny", **two)
    assert "nothing states" in refusal("tiny", pretrained=path).message
    checkpoints.register(monkeypatch, "tiny", other=two["other"])
    assert checkpoints.load("tiny", pretrained=path).spec.pixels.mean == (0.5, 0.5, 0.5)


def test_preprocessing_family_against_what_is_stated(tmp_path: Path) -> None:
    folder = checkpoints.write_checkpoint(tmp_path / "c")
    assert "states another preprocessing than 'clipa'" in refusal(folder, preprocessing="clipa").message
    assert "choose one of openai" in str(refusal(folder, preprocessing="opeani").fix)
    assert checkpoints.load(folder, preprocessing="openai").spec.pixels.resize == "shortest"


def test_transform_of_another_open_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should open_clip one day prepare pictures in other steps, that is an error and no drift."""
    import torchvision.transforms as steps

    from clipdeploy.export.openclip import preprocessing

    real = preprocessing.image_transform_v2
    monkeypatch.setattr(
        preprocessing, "image_transform_v2", lambda *a, **k: steps.Compose([*real(*a, **k).transforms, torch.nn.ReLU()])
    )
    assert "other steps than known" in refusal(checkpoints.write_checkpoint(tmp_path / "c")).message


# -- tokenizer and text tower


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ({"vocab_size": 1000}, "ids up to 49407, the text tower takes 1000"),
        ({"pool_type": "eos", "eos_id": 2}, "pools at id 2, but the tokenizer ends texts with 49407"),
        ({"tokenizer_kwargs": {"reduction_mask": "random"}}, "drops words at random"),
        ({"tokenizer_kwargs": {"additional_special_tokens": ["<x>"]}}, "another pattern"),
        ({"hf_tokenizer_name": "org/none"}, "tokenizer or text model"),
        ({"hf_model_name": "org/none"}, "tokenizer or text model"),
    ],
)
def test_text_side_that_does_not_fit(
    tmp_path: Path, text: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    config = checkpoints.model_config(text_cfg=text)
    error = refusal(checkpoints.write_checkpoint(tmp_path / "c", config, weights=None), random_weights=True)
    assert says in error.message


def test_what_open_clip_warns_of_is_an_error() -> None:
    from clipdeploy.export.openclip.quiet import no_complaints

    with pytest.raises(CheckpointError, match="open_clip warns: QuickGELU mismatch"), no_complaints("x"):
        model = {"quick_gelu": True, "hf_hub": "", "file": __file__}
        with pytest.MonkeyPatch.context() as patch:
            checkpoints.register(patch, "tiny", tag=model)
            open_clip.create_model("tiny", "tag", load_weights=False)
