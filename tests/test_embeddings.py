"""The embed job: what it writes, what it skips, and how it goes on after an interruption."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipdeploy.embeddings import EmbedRequest, EmbedResult, embed, job, read_summary
from clipdeploy.errors import ImageError, InputError, MissingExtraError, OutputError
from clipdeploy.runtime.clip import load
from tests.bundles import make_bundle

COUNT = 10


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, ...]:
    rng = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(COUNT):
        Image.fromarray(rng.integers(0, 256, (40 + i, 50, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return tuple(sorted(folder.iterdir()))


@pytest.fixture
def request_(bundle: Path, pictures: tuple[Path, ...], tmp_path: Path) -> EmbedRequest:
    return EmbedRequest(bundle=bundle, output=tmp_path / "out.npz", pictures=pictures, batch_size=2, part_size=4)


class Interrupted:
    """A progress callback that plays Ctrl-C when `done` inputs are embedded."""

    def __init__(self, done: int) -> None:
        self.done = done

    def __call__(self, what: str, done: int, total: int) -> None:
        if done >= self.done:
            raise KeyboardInterrupt


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_pictures(request_: EmbedRequest) -> None:
    result = embed(request_)
    with np.load(request_.output) as data, load(request_.bundle, backend=result.backend) as clip:
        np.testing.assert_array_equal(data["embeddings"], clip.encode_image(list(request_.pictures)))
        assert data["embeddings"].dtype == np.float32
        assert data["names"].tolist() == [str(path) for path in request_.pictures]
        assert str(data["embedding_space"]) == clip.embedding_space
    assert (result.count, result.embed_dim, result.skipped, result.resumed) == (COUNT, 16, (), 0)
    assert leftovers(request_.output.parent) == []


def test_texts(request_: EmbedRequest) -> None:
    texts = ("a dog", "ein Hund, größer", "猫", "x" * 200)
    result = embed(replace(request_, pictures=(), texts=texts))
    with np.load(request_.output) as data, load(request_.bundle, backend=result.backend) as clip:
        np.testing.assert_allclose(data["embeddings"], clip.encode_text(list(texts)), rtol=0, atol=1e-6)
        assert tuple(data["names"]) == texts
    assert result.cut == 1


def test_broken_pictures_are_skipped_and_named(request_: EmbedRequest) -> None:
    broken = request_.pictures[3]
    broken.write_bytes(broken.read_bytes()[:60])
    result = embed(request_)
    assert result.count == COUNT - 1
    assert [item.path for item in result.skipped] == [str(broken)]
    with np.load(request_.output) as data:
        assert str(broken) not in data["names"].tolist()
        assert data["skipped"].tolist() == [str(broken)]
        (noted,) = json.loads(str(data["metadata"]))["skipped"]
    assert "3.png" in noted["reason"]


def test_nothing_but_broken_pictures(request_: EmbedRequest) -> None:
    for path in request_.pictures:
        path.write_bytes(b"no picture")
    with pytest.raises(ImageError, match="not one of 10 pictures"):
        embed(request_)
    assert not request_.output.exists()
    assert leftovers(request_.output.parent) == []


def test_an_interrupted_job_goes_on(request_: EmbedRequest) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed(request_, progress=Interrupted(6))
    assert not request_.output.exists()
    assert leftovers(request_.output.parent) == [".out.npz.parts"]
    seen: list[tuple[str, int]] = []
    result = embed(request_, progress=lambda what, done, total: seen.append((what, done)))
    assert result.resumed == 4
    assert next(done for what, done in seen if what == "embedding pictures") == 4
    fresh = embed(replace(request_, output=request_.output.with_name("fresh.npz")))
    assert fresh.resumed == 0
    with np.load(request_.output) as resumed, np.load(fresh.output) as whole:
        np.testing.assert_array_equal(resumed["embeddings"], whole["embeddings"])
        assert resumed["names"].tolist() == whole["names"].tolist()
    assert leftovers(request_.output.parent) == []


def test_a_changed_picture_is_no_continuation(request_: EmbedRequest) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed(request_, progress=Interrupted(6))
    os.utime(request_.pictures[0], (1, 1))
    assert embed(request_).resumed == 0


def test_a_broken_part_is_made_again(request_: EmbedRequest) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed(request_, progress=Interrupted(10))
    first, *_ = sorted((request_.output.parent / ".out.npz.parts").rglob("*.npz"))
    first.write_bytes(first.read_bytes()[:100])
    assert embed(request_).resumed == 4


def test_run_twice_works_once(request_: EmbedRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    embed(request_)
    before = request_.output.stat()

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(job, "embed_many", never)
    result = embed(request_)
    assert result.up_to_date
    assert result.count == COUNT
    assert request_.output.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("content", [b"mine", None])
def test_an_output_of_something_else_is_kept(request_: EmbedRequest, content: bytes | None) -> None:
    if content is None:
        embed(replace(request_, pictures=request_.pictures[:2]))
    else:
        request_.output.write_bytes(content)
    before = request_.output.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        embed(request_)
    assert request_.output.read_bytes() == before
    assert embed(replace(request_, overwrite=True)).count == COUNT


def test_another_model_is_another_job(request_: EmbedRequest, tmp_path: Path) -> None:
    embed(request_)
    other = make_bundle(tmp_path / "other", seed=7)
    with pytest.raises(OutputError, match="exists already"):
        embed(replace(request_, bundle=other))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"output": "out.csv"}, InputError, "unknown kind of output"),
        ({"output": "gone/out.npz"}, OutputError, "does not exist"),
        ({"output": "pictures"}, InputError, "unknown kind of output"),
        ({"texts": ("a",)}, InputError, "got both"),
        ({"pictures": ()}, InputError, "got neither"),
        ({"batch_size": 0}, InputError, "at least 1"),
    ],
)
def test_bad_requests(request_: EmbedRequest, changes: dict[str, Any], error: type[Exception], message: str) -> None:
    if "output" in changes:
        changes = {"output": request_.output.parent / changes["output"]}
    with pytest.raises(error, match=message):
        embed(replace(request_, **changes))


def parquet(request_: EmbedRequest) -> tuple[EmbedRequest, EmbedResult]:
    request_ = replace(request_, output=request_.output.with_suffix(".parquet"))
    return request_, embed(request_)


def test_parquet(request_: EmbedRequest) -> None:
    arrow = pytest.importorskip("pyarrow.parquet", reason="needs the extra: pip install 'clipdeploy[parquet]'")
    embed(request_)
    request_.pictures[0].rename(request_.pictures[0].with_name("moved.png"))
    request_.pictures[0].write_bytes(b"broken")
    request_, result = parquet(request_)
    table = arrow.read_table(request_.output)
    assert table.column_names == ["name", "embedding"]
    assert table["name"].to_pylist() == [str(path) for path in request_.pictures[1:]]
    with np.load(request_.output.with_suffix(".npz")) as data:
        np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), np.float32), data["embeddings"][1:])
    metadata = json.loads(table.schema.metadata[b"clipdeploy"])
    assert metadata["embedding_space"] == result.embedding_space
    assert [item["path"] for item in metadata["skipped"]] == [str(request_.pictures[0])]
    assert read_summary(request_.output).count == COUNT - 1
    assert embed(request_).up_to_date


def test_parquet_without_pyarrow(request_: EmbedRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError) as caught:
        parquet(request_)
    assert caught.value.fix == "pip install 'clipdeploy[parquet]'"
    assert leftovers(request_.output.parent) == []


def test_names_that_are_no_utf8(request_: EmbedRequest) -> None:
    odd = Path(os.fsdecode(os.fsencode(request_.pictures[0].parent) + b"/b\xffad.png"))
    try:
        request_.pictures[0].rename(odd)
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    assert embed(replace(request_, pictures=(odd,))).count == 1
    with np.load(request_.output) as data:
        assert data["names"].tolist() == [str(odd)]
