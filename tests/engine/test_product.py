from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from clipdeploy.engine.product import Product, find_product
from clipdeploy.errors import ClipdeployError, EngineError, InputError, MissingExtraError
from clipdeploy.runtime.trt import product as products


def install(monkeypatch: pytest.MonkeyPatch, **versions: str | Exception) -> None:
    """Play a machine on which these modules are installed, or fail to load."""

    def load(name: str) -> Any:
        there = versions.get(name)
        if there is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if isinstance(there, Exception):
            raise there
        return SimpleNamespace(__name__=name, __version__=there, Builder=object)

    monkeypatch.setattr(products, "import_module", load)
    monkeypatch.setattr(products, "find_spec", versions.get)


def test_both_products_have_one_face(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tensorrt="10.3.0", tensorrt_rtx="1.7.1.116")
    full, rtx = find_product("tensorrt"), find_product("tensorrt-rtx")
    assert (str(full), full.rtx, full.major) == ("TensorRT 10.3.0", False, 10)
    assert (str(rtx), rtx.rtx, rtx.major) == ("TensorRT for RTX 1.7.1.116", True, 1)


@pytest.mark.parametrize(
    ("installed", "has_gpu", "jetson", "chosen"),
    [
        (("tensorrt", "tensorrt_rtx"), True, False, "tensorrt"),
        (("tensorrt", "tensorrt_rtx"), False, False, "tensorrt-rtx"),  # TensorRT cannot build without a GPU
        (("tensorrt_rtx",), True, False, "tensorrt-rtx"),
        (("tensorrt",), True, True, "tensorrt"),
    ],
)
def test_auto(
    monkeypatch: pytest.MonkeyPatch, installed: tuple[str, ...], has_gpu: bool, jetson: bool, chosen: str
) -> None:
    versions = {"tensorrt": "11.4.1.2", "tensorrt_rtx": "1.7.1.116"}
    install(monkeypatch, **{name: versions[name] for name in installed})
    assert find_product("auto", has_gpu=has_gpu, jetson=jetson).backend == chosen


def test_a_missing_product_names_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    with pytest.raises(MissingExtraError, match=r"pip install 'clipdeploy\[tensorrt-rtx\]'"):
        find_product("tensorrt-rtx")
    with pytest.raises(MissingExtraError, match=r"tensorrt-rtx"):
        find_product("auto", has_gpu=False)
    with pytest.raises(
        EngineError, match=r"neither is installed[\s\S]*clipdeploy\[tensorrt\][\s\S]*clipdeploy\[tensorrt-rtx\]"
    ):
        find_product("auto", has_gpu=True)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ("8.6.1", r"TensorRT 8\.6\.1 is too old: engines are built with 10\.3 or newer[\s\S]*JetPack 6"),
        ("10.2.0", "too old"),
        (ImportError("libnvinfer.so.10: cannot open shared object file"), "does not load: libnvinfer.so.10"),
    ],
)
def test_a_product_that_is_of_no_use(monkeypatch: pytest.MonkeyPatch, found: str | Exception, message: str) -> None:
    install(monkeypatch, tensorrt=found)
    with pytest.raises(ClipdeployError, match=message):
        find_product("tensorrt")


def test_an_empty_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "import_module", lambda name: SimpleNamespace(__name__=name))
    with pytest.raises(EngineError, match=r"installed but empty[\s\S]*--force-reinstall"):
        find_product("tensorrt")


def test_an_unknown_backend() -> None:
    with pytest.raises(InputError, match="expected one of tensorrt, tensorrt-rtx, auto"):
        find_product("openvino")


def test_a_version_with_letters() -> None:
    assert Product("tensorrt", None, "10.13.3.9.post1").major == 10
