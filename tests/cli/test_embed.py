"""clipdeploy embed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clipdeploy.embeddings import job
from tests.cli.conftest import Run, document, failure


def test_pictures_to_npz(run: Run, bundle: Path, photos_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.npz"
    result = run("embed", bundle, photos_folder, "-r", "-o", output)
    assert result.exit_code == 0
    assert f"{output}: 5 pictures, 16 values each" in result.stdout
    with np.load(output) as data:
        assert data["embeddings"].shape == (5, 16)
        assert [Path(name).name for name in data["names"]] == ["a.png", "b.jpg", "c.png", "d.png", "e.jpg"]


def test_texts_and_json(run: Run, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("a dog\na cat\n")
    result = run("embed", bundle, "--texts", tmp_path / "texts.txt", "-o", tmp_path / "out.npz", "--json")
    answer = document(result)
    assert (answer["count"], answer["embed_dim"], answer["resumed"]) == (2, 16, 0)
    assert run("embed", bundle, "--texts", tmp_path / "texts.txt", "-o", tmp_path / "out.npz", "--json").exit_code == 0


def test_a_broken_jpeg(run: Run, bundle: Path, photos_folder: Path, broken: Path, tmp_path: Path) -> None:
    result = run("embed", bundle, photos_folder, broken, "-o", tmp_path / "out.npz", "--json")
    assert result.exit_code == 3
    assert f"skipped: {broken}" in result.stderr
    assert "skipped 1 of 4 pictures" in result.stderr
    assert [item["path"] for item in document(result)["skipped"]] == [str(broken)]


def test_ctrl_c_and_again(
    run: Run, bundle: Path, photos_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    output = tmp_path / "out.npz"
    with monkeypatch.context() as patch:
        patch.setattr(job, "embed_many", interrupted)
        result = run("embed", bundle, photos_folder, "-o", output)
    assert result.exit_code == 130
    assert result.stderr == "interrupted; run the same command again to go on from here\n"
    assert not output.exists()
    assert run("embed", bundle, photos_folder, "-o", output).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{photos}", "-o", "{tmp}/out.csv"), "unknown kind of output"),
        (("{photos}", "-o", "{tmp}/gone/out.npz"), "mkdir -p"),
        (("{tmp}/gone.jpg", "-o", "{tmp}/out.npz"), "gone.jpg does not exist"),
        (("{tmp}/empty", "-o", "{tmp}/out.npz"), "holds no picture"),
        (("--texts", "{tmp}/empty.txt", "-o", "{tmp}/out.npz"), "holds no texts"),
        (("{photos}", "-o", "{tmp}/taken.npz"), "--overwrite"),
    ],
)
def test_bad_input(
    run: Run, bundle: Path, photos_folder: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "taken.npz").write_bytes(b"mine")
    said = failure(run("embed", bundle, *(arg.format(photos=photos_folder, tmp=tmp_path) for arg in arguments)))
    assert message in said
    assert (tmp_path / "taken.npz").read_bytes() == b"mine"


@pytest.mark.parametrize("arguments", [("-o", "out.npz"), ("a.png", "--texts", "b", "-o", "out.npz"), ("a.png",)])
def test_a_senseless_command_line(run: Run, bundle: Path, arguments: tuple[str, ...]) -> None:
    assert run("embed", bundle, *arguments).exit_code == 2
