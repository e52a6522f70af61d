"""Targets as people write them."""

from __future__ import annotations

import pytest

from clipdeploy.engine.targets.target import EngineTarget, parse_target, read_version
from clipdeploy.errors import InputError

READ = {
    "tensorrt 10.3, sm_87": ("tensorrt", (10, 3), ("8.7",)),
    "sm87; TensorRT 10.3.0.30": ("tensorrt", (10, 3, 0, 30), ("8.7",)),
    "trt10.13, 11.0": ("tensorrt", (10, 13), ("11.0",)),
    "tensorrt 10.13, sm_101": ("tensorrt", (10, 13), ("11.0",)),
    "tensorrt-rtx 1.7, sm_89": ("tensorrt-rtx", (1, 7), ("8.9",)),
    "TensorRT for RTX 1.4, sm_120 sm_86": ("tensorrt-rtx", (1, 4), ("8.6", "12.0")),
    "tensorrt_rtx, 8.6": ("tensorrt-rtx", (1, 7), ("8.6",)),
    "tensorrt-rtx 1.7": ("tensorrt-rtx", (1, 7), ("8.0", "8.6", "8.9", "12.0", "12.1")),
    "tensorrt-rtx 1.4": ("tensorrt-rtx", (1, 4), ("8.6", "8.9", "12.0")),
    "rtx 4090": ("tensorrt-rtx", (1, 7), ("8.9",)),
    "NVIDIA GeForce RTX 5070 Ti Laptop": ("tensorrt-rtx", (1, 7), ("12.0",)),
    "tensorrt 11.4, rtx 4090": ("tensorrt", (11, 4), ("8.9",)),
    "tensorrt 10.13, NVIDIA A100-SXM4-80GB": ("tensorrt", (10, 13), ("8.0",)),
    "tensorrt 10.16, gb10": ("tensorrt", (10, 16), ("12.1",)),
    "tensorrt 10.9, Tesla T4": ("tensorrt", (10, 9), ("7.5",)),
    "orin": ("tensorrt", (10, 3), ("8.7",)),
    "Jetson AGX Orin": ("tensorrt", (10, 3), ("8.7",)),
    "jetpack 6": ("tensorrt", (10, 3), ("8.7",)),
    "jetpack 6.2.1, orin nano": ("tensorrt", (10, 3), ("8.7",)),
    "agx orin, tensorrt 10.7": ("tensorrt", (10, 7), ("8.7",)),
    "thor": ("tensorrt", (10, 13), ("11.0",)),
    "jetpack 7.1": ("tensorrt", (10, 13), ("11.0",)),
    "thor, jetpack 7.2, tensorrt 11.4.1": ("tensorrt", (11, 4, 1), ("11.0",)),
}

REFUSED = {
    "": "the version is missing",
    "sm_87": "the version is missing",
    "tensorrt 10.3": "the GPU is missing",
    "tensorrt 8.6, sm_87": "too old",
    "xavier": "stops at JetPack 5",
    "jetpack 6.0": "nothing is known of the TensorRT of JetPack 6.0",
    "jetpack 7.2, thor": "nothing is known of the TensorRT of JetPack 7.2",
    "tensorrt 10.3, sm_87, raspberry pi": "'raspberry pi' is not known",
    "rtx 9090": "'rtx 9090' is not known",
}


@pytest.mark.parametrize("text", READ)
def test_reads(text: str) -> None:
    target = parse_target(text)
    assert (target.backend, target.version, target.compute_capabilities) == READ[text]


@pytest.mark.parametrize("text", REFUSED)
def test_refuses_and_says_what_to_write(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_target(text)
    assert REFUSED[text] in caught.value.message
    assert caught.value.fix


def test_says_what_it_took_for_granted() -> None:
    assert parse_target("tensorrt 10.3, sm_87").assumed == ()
    assert parse_target("orin").assumed == ("JetPack 6 brings TensorRT 10.3",)
    assert parse_target("jetpack 6").assumed == ("JetPack 6 brings TensorRT 10.3", "JetPack 6 runs on sm_87")
    assert "called sm_110 since CUDA 13" in parse_target("tensorrt 10.13, sm_101").assumed[0]
    assert str(parse_target("thor")) == "TensorRT 10.13, sm_110 (Jetson Thor)"
    assert str(parse_target("jetpack 6.2, agx orin")) == "TensorRT 10.3, sm_87, JetPack 6.2 (Jetson AGX Orin)"


@pytest.mark.parametrize(
    ("text", "dla"),
    [
        *(("agx orin", True), ("orin nx", True), ("orin nano", False), ("orin", None), ("thor", False)),
        *(("tensorrt 10.3, sm_87", None), ("jetpack 6", None), ("tensorrt 10.3, sm_89", False)),
    ],
)
def test_knows_which_have_a_dla(text: str, dla: bool | None) -> None:
    assert parse_target(text).dla is dla


def test_versions_compare_as_far_as_they_are_given() -> None:
    target = parse_target("tensorrt 11.4, sm_89")
    assert target.since((11, 4, 1)) and target.before((11, 4, 1))  # some 11.4 may be either
    assert target.since((11, 0)) and not target.since((11, 5)) and not target.before((11, 4))
    full = EngineTarget.of(
        "tensorrt", "10.3.0.30", ("8.7",), device="NVIDIA Jetson AGX Orin Developer Kit", jetpack="6.2"
    )
    assert full.since((10, 3)) and full.before((10, 4)) and not full.before((10, 3))
    assert (full.version, full.dla) == ((10, 3, 0, 30), True)
    assert EngineTarget.of("tensorrt", "10.9.0.34", ("10.1",)).compute_capabilities == ("11.0",)
    assert read_version("1.7.1.48.post1") == (1, 7, 1, 48)
    with pytest.raises(InputError, match="is no version"):
        read_version("latest")
