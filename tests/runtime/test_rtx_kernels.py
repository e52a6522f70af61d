"""Kernels that TensorRT for RTX compiled, kept in a file that may be anything when it is read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipdeploy.runtime.trt.kernels import FOLDER, KernelCache, kernel_file


class Product:
    """The product's cache: takes what begins with its mark, and knows what it was given and has compiled since."""

    def __init__(self, compiled: bytes = b"") -> None:
        self.compiled, self.read = compiled, 0

    def deserialize(self, blob: bytes) -> bool:
        self.read += 1
        if not blob.startswith(b"rtx"):
            return False
        self.compiled = blob[3:]
        return True

    def serialize(self) -> bytes:
        return b"rtx" + self.compiled if self.compiled else b""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "kernels.bin"


def test_kernels_are_there_the_next_time(path: Path) -> None:
    cache = KernelCache(runtime_cache=Product(b"one"), path=path)
    cache.keep()
    second = Product()
    cache = KernelCache(runtime_cache=second, path=path)
    assert second.compiled == b"one"
    before = path.stat().st_mtime_ns
    cache.keep()
    assert path.stat().st_mtime_ns == before  # nothing new
    second.compiled += b"two"
    cache.keep()
    assert path.read_bytes() == b"rtxonetwo"
    assert [file.name for file in path.parent.iterdir()] == ["kernels.bin"]


@pytest.mark.parametrize("content", [b"", b"other version", None])
def test_a_file_that_does_not_fit_is_written_anew(path: Path, content: bytes | None) -> None:
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content)
    cache = KernelCache(runtime_cache=Product(b"one"), path=path)
    cache.keep()
    assert path.read_bytes() == b"rtxone"


def test_nothing_compiled_is_not_written(path: Path) -> None:
    KernelCache(runtime_cache=Product(), path=path).keep()
    assert not path.exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "deep").write_text("a file where the folder should be")
    product = Product(b"one")
    cache = KernelCache(runtime_cache=product, path=tmp_path / "deep" / "kernels.bin")
    cache.keep()
    assert product.read == 0


def test_without_a_file(path: Path) -> None:
    KernelCache(runtime_cache=Product(b"one"), path=None).keep()
    assert not path.exists()


def test_where_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLIPDEPLOY_CACHE", str(tmp_path))
    one = kernel_file("visual_tensorrt-rtx-1.7.1_sm89_0a1b2c3d", "NVIDIA RTX 4090")
    assert one.parent == tmp_path / FOLDER
    assert one != kernel_file("visual_tensorrt-rtx-1.7.1_sm89_0a1b2c3d", "NVIDIA RTX 4080")
