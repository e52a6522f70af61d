"""Both demo CLIPs in every precision, on the pictures that their published scores are of: `python -m bench.evaluate`.

    python -m bench.evaluate [--bundles FOLDER] [--a-pair 50] [--calibration 512] [--json out/bench/evaluate.json]

Each is exported and quantised first, unless FOLDER has `rn` and `vit` already. The pictures are those of
`clipdeploy.demo.score`: held-out pairs of colour and shape among all 120 names, written without loss as webdataset
shards; calibration is on other pictures, of pairs that training saw. PyTorch on the checkpoint is the reference. The
group of a picture is its colour.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.common import OUT, environment, write_json
from clipdeploy.bundle import Bundle
from clipdeploy.demo import MODELS, model_path, write_images
from clipdeploy.demo.captions import class_name
from clipdeploy.demo.world import HELD_OUT, PAIRS
from clipdeploy.evaluate.job import evaluate_bundle
from clipdeploy.evaluate.limits import METRICS
from clipdeploy.evaluate.metrics import wilson
from clipdeploy.evaluate.records import EvaluateRequest, EvaluateResult
from clipdeploy.machine import usable_cores
from clipdeploy.request import CheckpointRequest
from clipdeploy.spec import Precision, Tower, to_dict
from clipdeploy.text import table
from clipdeploy.writing import replacing

QUANTISED = (("fp16", None), ("bf16", None), ("int8", "cpu"), ("int8", "tensorrt"))
HEAD = ("", "top-1", "top-5", "per class", "same answer", "least cosine")


def write_shard(folder: Path, *, a_pair: int) -> tuple[Path, Path]:
    """The pictures that the published scores are of: a webdataset of PNG files, and the colour of each as its group."""
    from clipdeploy.demo.score import score_pictures

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classnames.txt").write_text("\n".join(map(class_name, PAIRS)) + "\n", encoding="utf-8")
    groups = folder / "groups.csv"
    with (
        replacing(folder / "0.tar") as beside,
        tarfile.open(beside, "w") as shard,
        groups.open("w", newline="", encoding="utf-8") as colours,
    ):
        rows = csv.writer(colours)
        rows.writerow(("picture", "group"))
        for number, (picture, pair) in enumerate(score_pictures(HELD_OUT, a_pair)):
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            _add(shard, f"{number:05d}.png", buffer.getvalue())
            _add(shard, f"{number:05d}.cls", str(PAIRS.index(pair)).encode())
            rows.writerow((f"{number:05d}.png", pair[0]))
    return folder, groups


def make_bundle(key: str, folder: Path, calibration: Path, samples: int) -> Path:
    """The demo model `key` exported and quantised, as far as it is not there."""
    from clipdeploy.pipeline import ExportRequest, export_bundle
    from clipdeploy.quantize import QuantizeRequest, quantize_bundle

    folder.parent.mkdir(parents=True, exist_ok=True)
    if not (folder / "manifest.json").exists():
        export_bundle(ExportRequest(CheckpointRequest(f"local-dir:{model_path(key)}"), output=folder))
    bundle = Bundle.open(folder)
    for precision, target in QUANTISED:
        if target in bundle.targets(Tower.IMAGE, Precision.parse(precision)):
            continue
        quantize_bundle(
            QuantizeRequest(
                bundle=folder,
                precision=precision,
                data=(str(calibration),),
                samples=samples,
                target=target,  # type: ignore[arg-type]
                labels=tuple(map(class_name, PAIRS)),
            )
        )
    return folder


def measure(key: str, bundle: Path, data: Path, groups: Path) -> EvaluateResult:
    """One demo model: PyTorch, then every backend and precision that runs here."""
    request = EvaluateRequest(
        bundle=bundle,
        data=data,
        groups=groups,
        checkpoint=CheckpointRequest(f"local-dir:{model_path(key)}"),
    )
    return evaluate_bundle(request)


def record_of(results: dict[str, EvaluateResult]) -> dict[str, Any]:
    """What the results file keeps."""
    models = {}
    for key, result in results.items():
        published = json.loads((model_path(key) / "score.json").read_text(encoding="utf-8"))["held_out"]
        pairs = [to_dict(replace(pair, confusions=(), drops=(), per_class=(), groups=())) for pair in result.pairs]
        for pair in pairs:
            right = round(pair["metrics"]["acc1"] * result.count)
            pair["interval"] = wilson(right, result.count)
            for untold in ("reason", "seconds"):  # accuracy alone; speed is measured where nothing else runs
                pair.pop(untold)
        models[key] = {
            "model": result.model,
            "pictures": result.count,
            "classes": len(result.classes),
            "published_top1": published["top1"],
            "published_pictures": published["pictures"],
            "pairs": pairs,
            "absent": result.absent,
        }
    return {"what": "evaluate", "models": models}


def report(record: dict[str, Any]) -> str:
    """The tables as text, a block a model."""
    blocks = []
    for key, model in record["models"].items():
        published = f"published {model['published_top1']:.2%} of {model['published_pictures']}"
        head = f"{key}: {model['pictures']} pictures among {model['classes']} classes; {published}"
        blocks.append(f"{head}\n{table(HEAD, rows(model), right=range(1, len(HEAD)))}")
    return "\n\n".join(blocks)


def rows(model: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row a pair, the reference first."""
    return [_row(pair) for pair in model["pairs"]]


def _row(pair: dict[str, Any]) -> tuple[str, ...]:
    metrics = [f"{pair['metrics'][name]:.2%}" for name in METRICS["zeroshot_classification"]]
    beside = pair["agreement"]
    agreed = ("", "") if beside is None else (f"{beside['same_answer']:.2%}", f"{beside['cosine_least']:.6f}")
    return (f"{pair['backend']} {pair['precision']}", *metrics, *agreed)


def _add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    shard.addfile(entry, io.BytesIO(content))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=OUT / "evaluate")
    parser.add_argument("--a-pair", type=int, default=50)
    parser.add_argument("--calibration", type=int, default=512)
    parser.add_argument("--json", type=Path, default=OUT / "evaluate.json")
    asked = parser.parse_args(arguments)
    place = OUT / "evaluate"
    data, groups = write_shard(place / "held-out", a_pair=asked.a_pair)
    results = {}
    for key in MODELS:
        bundle = asked.bundles / key
        calibration = write_images(place / "calibration", count=asked.calibration, split="seen", seed=7).folder
        make_bundle(key, bundle, calibration, asked.calibration)
        results[key] = measure(key, bundle, data, groups)
    record = {**record_of(results), "environment": environment(usable_cores())}
    print(report(record))
    write_json(asked.json, record)


if __name__ == "__main__":
    main()
