"""What CLIP_benchmark reads, and what is refused before any work."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from clipdeploy.errors import InputError, OutputError
from clipdeploy.evaluate.files import benchmark_rows, check_outputs, file_name, write_results
from clipdeploy.evaluate.limits import check_limits, find_misses
from clipdeploy.evaluate.records import EvaluateRequest
from tests.evaluate.results import made, pair

KEYS = {"dataset", "model", "pretrained", "task", "metrics", "language"}


def build_csv(files: list[Path], output: Path) -> None:
    """As `clip_benchmark build` of version 1.6.2 goes about it: metrics flattened, a column for every other key."""
    rows = []
    for file in files:
        data = json.loads(file.read_text(encoding="utf-8"))
        metrics = data.pop("metrics")
        rows.append({**metrics, **data, "model_fullname": data["model"] + " " + data["pretrained"]})
    with output.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=sorted({name for row in rows for name in row}))
        writer.writeheader()
        writer.writerows(rows)


def test_a_folder_of_files_becomes_one_csv(tmp_path: Path) -> None:
    written = write_results(tmp_path / "a" / "out", made())
    assert [path.name for path in written] == [
        "shapes_laion2b_ViT-B-32_en_zeroshot_classification.json",
        "shapes_laion2b_onnxruntime_fp32_ViT-B-32_en_zeroshot_classification.json",
        "shapes_laion2b_openvino_int8_ViT-B-32_en_zeroshot_classification.json",
    ]
    build_csv(list(written), tmp_path / "all.csv")
    rows = list(csv.DictReader((tmp_path / "all.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["model_fullname"] for row in rows] == [
        "ViT-B-32 laion2b",
        "ViT-B-32 laion2b onnxruntime fp32",
        "ViT-B-32 laion2b openvino int8",
    ]
    assert [row["acc1"] for row in rows] == ["0.75", "0.75", "0.5"]


def test_a_json_file_is_a_list_of_all(tmp_path: Path) -> None:
    assert write_results(tmp_path / "all.json", made()) == (tmp_path / "all.json",)
    rows = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert [(row["backend"], row["precision"]) for row in rows][1:] == [("onnxruntime", "fp32"), ("openvino", "int8")]
    for row in rows:
        assert row.keys() >= KEYS
        assert (row["dataset"], row["task"], row["language"]) == ("shapes", "zeroshot_classification", "en")
    assert rows[2]["drops"][0]["name"] == "cat/1.jpg"
    assert [path.name for path in tmp_path.iterdir()] == ["all.json"]  # nothing is left beside it


def test_what_json_lacks_becomes_null() -> None:
    (row, *_) = benchmark_rows(made(metrics={"acc1": 0.5, "acc5": float("nan"), "mean_per_class_recall": 0.5}))
    assert row["metrics"]["acc5"] is None


def test_names_hold_no_path() -> None:
    row = {
        "dataset": "wds/x y",
        "pretrained": "local-dir:/tmp/a",
        "model": "../m",
        "language": "en",
        "task": "t",
    }
    assert file_name(row) == "wds_x_y_local-dir_tmp_a_m_en_t.json"


def test_outputs_are_checked_before_the_work(tmp_path: Path) -> None:
    def refused(**outputs: Path) -> str:
        with pytest.raises(OutputError) as caught:
            check_outputs(EvaluateRequest(tmp_path, tmp_path, **outputs))  # type: ignore[arg-type]
        return f"{caught.value}"

    (tmp_path / "file").write_text("")
    assert "does not exist" in refused(html=tmp_path / "no" / "page.html")
    assert "is a folder" in refused(html=tmp_path)
    assert "does not exist" in refused(output=tmp_path / "no" / "all.json")
    assert "is a file, and no .json" in refused(output=tmp_path / "file")
    assert "cannot be written" in refused(output=tmp_path / "file" / "folder")
    check_outputs(EvaluateRequest(tmp_path, tmp_path, html=tmp_path / "p.html", output=tmp_path / "new" / "folder"))


def test_limits_say_which_pair_misses(tmp_path: Path) -> None:
    request = EvaluateRequest(tmp_path, tmp_path, at_least=(("acc1", 0.6),), max_drop=0.01)
    (low, drop) = find_misses(request, "zeroshot_classification", made().pairs)
    assert low == "openvino int8: acc1 is 50.00%, 60.00% was asked for"
    assert drop == "openvino int8: acc1 is 50.00%, 25.00% below PyTorch fp32; 1.00% was allowed"
    just = EvaluateRequest(tmp_path, tmp_path, at_least=(("acc1", 0.5),), max_drop=0.25)
    assert find_misses(just, "zeroshot_classification", made().pairs) == ()
    broken = pair("a", "fp32", {"acc1": float("nan")})
    (miss,) = find_misses(EvaluateRequest(tmp_path, tmp_path, at_least=(("acc1", 0.0),)), made().task, (broken,))
    assert miss.startswith("a fp32: acc1 is")


def test_limits_that_make_no_sense(tmp_path: Path) -> None:
    def refused(task: str = "zeroshot_classification", *, reference: bool = True, **limits: object) -> str:
        request = EvaluateRequest(tmp_path, tmp_path, **limits)  # type: ignore[arg-type]
        with pytest.raises(InputError) as caught:
            check_limits(request, task, has_reference=reference)  # type: ignore[arg-type]
        return f"{caught.value}"

    assert "no metric 'acc2' here; there are acc1, acc5" in refused(at_least=(("acc2", 0.5),))
    assert "text_retrieval_recall@10" in refused("zeroshot_retrieval", at_least=(("acc1", 0.5),))
    assert "a share from 0 to 1" in refused(at_least=(("acc1", 60.0),))
    assert "a share from 0 to 1" in refused(max_drop=1.5)
    assert "no reference" in refused(max_drop=0.1, reference=False)
