from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx", reason="building engines needs the extra: pip install 'clipdeploy[quantize]'")
pytest.importorskip("onnxruntime", reason="the imagined TensorRT computes with it: pip install 'clipdeploy[cpu]'")

from clipdeploy.engine.builder.timing import CacheOrigin, check_cache, note_path, open_cache, save_cache
from clipdeploy.engine.product import Product
from clipdeploy.errors import EngineError, OutputError
from tests.engine.fake_tensorrt import make
from tests.fake_gpu import FakeCuda

ORIGIN = CacheOrigin("tensorrt", "10.3.0", "8.7")


@pytest.fixture
def product() -> Product:
    module = make("tensorrt-10.3.0", cuda=FakeCuda())
    return Product("tensorrt", module, module.__version__)


def config(product: Product) -> Any:
    return product.module.Builder(product.module.Logger()).create_builder_config()


def saved(product: Product, path: Path) -> bytes:
    made = config(product)
    save_cache(made, open_cache(made, path, product), path, ORIGIN)
    return path.read_bytes()


def test_written_and_read_again(tmp_path: Path, product: Product) -> None:
    path = tmp_path / "orin.cache"
    check_cache(path, ORIGIN)
    content = saved(product, path)
    assert content
    assert json.loads(note_path(path).read_text()) == vars(ORIGIN)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["orin.cache", "orin.cache.json"]
    check_cache(path, ORIGIN)
    made = config(product)
    assert bytes(open_cache(made, path, product).serialize()).startswith(content)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("version", "10.13.3", r"version 10\.3\.0, here 10\.13\.3"),
        ("compute_capability", "8.6", r"compute capability 8\.7, here 8\.6"),
    ],
)
def test_of_another_origin(tmp_path: Path, product: Product, field: str, value: str, message: str) -> None:
    path = tmp_path / "orin.cache"
    saved(product, path)
    with pytest.raises(EngineError, match=message):
        check_cache(path, replace(ORIGIN, **{field: value}))


def test_a_cache_without_a_note_is_for_the_product_to_judge(tmp_path: Path, product: Product) -> None:
    path = tmp_path / "trtexec.cache"
    saved(product, path)
    note_path(path).unlink()
    check_cache(path, replace(ORIGIN, version="11.4.0"))
    other = make("tensorrt-11.4.0", cuda=FakeCuda())
    later = Product("tensorrt", other, other.__version__)
    with pytest.raises(EngineError, match=r"refuses the timing cache .*another version or GPU[\s\S]*--timing-cache"):
        open_cache(config(later), path, later)


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no folder"):
        check_cache(tmp_path / "none" / "orin.cache", ORIGIN)
    with pytest.raises(OutputError, match="it is a folder"):
        check_cache(tmp_path, ORIGIN)


def test_what_another_build_wrote_meanwhile_is_kept(
    tmp_path: Path, product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "orin.cache"
    first, second = config(product), config(product)
    ours = open_cache(first, path, product)
    theirs = open_cache(second, path, product)
    save_cache(second, theirs, path, ORIGIN)
    combined: list[Any] = []
    monkeypatch.setattr(
        type(ours),
        "combine",
        lambda this, input_cache, ignore_mismatch: combined.append(bytes(input_cache.serialize())),
    )
    written = path.read_bytes()
    save_cache(first, ours, path, ORIGIN)
    assert combined == [written]
