"""Every family of CLIP, exported and verified by the command itself at full size: docs/models.md.

    python -m bench.models [--only NAME ...] [--missing] [--engines] [--page]

Each row is one `clipdeploy export` in a process of its own, of a checkpoint folder with seeded random weights. A row is
written as soon as it is done, in the place of an older one of its name; `--engines` measures nothing but the
TensorRT for RTX builds of rows that are there; `--page` only writes the page again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import model_engines
from bench.common import environment, parser_of, write_json
from bench.model_checkpoints import FAMILIES, Family, weight_file_bytes
from clipdeploy.bundle import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results" / "models.json"
PAGE = ROOT / "docs" / "models.md"
_POLL_S = 0.02


def measure(family: Family, scratch: Path) -> dict[str, Any]:
    """Make the checkpoint, export it, and count what torch's exporter alone would give: one row."""
    folder, bundle = scratch / "checkpoint", scratch / "bundle"
    folder.mkdir()
    load = round(os.getloadavg()[0], 2)
    _ours("--make", family.name, str(folder))
    outcome, peaks = _export(folder, bundle)
    plain = json.loads(_ours("--plain", family.name, str(folder)))
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    report = json.loads((bundle / "report" / "parity.json").read_text("utf-8"))
    stages = {stage["name"]: stage for stage in report["stages"]}
    size = weight_file_bytes(folder)
    return {
        "name": family.name,
        "family": family.family,
        "library": family.library,
        "tokenizer": family.tokenizer,
        "image_px": [manifest["model"]["pixels"]["height"], manifest["model"]["pixels"]["width"]],
        "towers": {
            tower["tower"]: {
                "architecture": manifest["model"][tower["tower"]]["architecture"],
                "parameters": manifest["model"][tower["tower"]]["parameters"],
                "torch_nodes": plain[tower["tower"]],
                "nodes": tower["steps"][-1]["nodes"],
                "max_abs": _check(stages[f"{tower['tower']}_tower"], "max abs, in batches"),
                "cosine": _check(stages[f"{tower['tower']}_tower"], "cosine"),
            }
            for tower in outcome["towers"]
        },
        "pixels_identical": stages["pixels"]["passed"],
        "tokens_identical": stages["tokens"]["passed"],
        "passed": report["passed"],
        "seconds": round(outcome["seconds"], 1),
        "load_1min": load,
        "checkpoint_bytes": size,
        "peak_bytes": peaks[0],
        "peak_anonymous_bytes": peaks[1],
        "peak_ratio": round(peaks[0] / size, 2),
        "tensorrt_rtx": model_engines.build(bundle) if model_engines.can_build() else None,
    }


def measure_engines(family: Family, scratch: Path) -> dict[str, Any]:
    """Make the checkpoint, export it without verification, and build its engines."""
    folder, bundle = scratch / "checkpoint", scratch / "bundle"
    folder.mkdir()
    _ours("--make", family.name, str(folder))
    _export(folder, bundle, "--no-verify")
    return model_engines.build(bundle)


def _check(stage: dict[str, Any], name: str) -> float:
    return float(next(check["value"] for check in stage["checks"] if check["name"] == name))


def _ours(*arguments: str) -> str:
    command = [sys.executable, "-m", "bench.models", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def _export(folder: Path, bundle: Path, *more: str) -> tuple[dict[str, Any], tuple[int, int]]:
    """The command's own JSON, and its peak of resident memory, all of it and without mapped files, in bytes."""
    command = [sys.executable, "-m", "clipdeploy", "export", str(folder), "-o", str(bundle), "--json", *more]
    anonymous = 0
    with tempfile.TemporaryFile("w+", encoding="utf-8") as answer, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=answer, stderr=errors, cwd=ROOT)
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            anonymous = max(anonymous, _anonymous_bytes(process.pid))
            time.sleep(_POLL_S)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)}\n{errors.read()}")
        answer.seek(0)
        return json.load(answer), (usage.ru_maxrss * 1024, anonymous)


def _anonymous_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    except OSError:  # not Linux, or it has just ended
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def plain_nodes(folder: Path) -> dict[str, int | None]:
    """Nodes of each encoder as torch's exporter writes the library's own module; None where it cannot."""
    import onnx
    from torch import Tensor, nn

    from clipdeploy.errors import ExportError
    from clipdeploy.export.graph.trace import trace_tower
    from clipdeploy.export.load import load_checkpoint
    from clipdeploy.request import CheckpointRequest
    from clipdeploy.spec import Tower

    checkpoint = load_checkpoint(CheckpointRequest(str(folder)))

    class Plain(nn.Module):
        def __init__(self, tower: Tower) -> None:
            super().__init__()
            self.model, self.encoder = checkpoint.model, checkpoint.encoder(tower)
            self.encode = checkpoint.encode_image if tower is Tower.IMAGE else checkpoint.encode_text

        def forward(self, batch: Tensor) -> Tensor:
            return self.encode(batch)

    nodes: dict[str, int | None] = {}
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for tower in Tower:
            path = Path(scratch) / tower.graph_name()
            try:
                trace_tower(Plain(tower), checkpoint.spec.tower(tower), path, opset=19, inline_limit_bytes=0)
                nodes[tower.value] = len(onnx.load(path, load_external_data=False).graph.node)
            except ExportError:
                nodes[tower.value] = None
    return nodes


_HEAD = """# Models

Written by `python -m bench.models` from `bench/results/models.json`; not edited by hand. Each row is one
`clipdeploy export` in a process of its own, verification against the checkpoint included.

Weights are random and seeded, in a checkpoint folder written by the library that owns the format; nodes, memory and
exactness depend on the architecture alone. Where the published tokenizer lies on a hub, a small one of the same kind
(Unigram, byte-level BPE, WordPiece), trained on the spot, stands for it: these rows say so. A row of a family stands
for its other sizes.

- **nodes**: operators in the image and the text graph, as torch's exporter writes the library's own module, and from
  clipdeploy, at opset 19.
- **max abs**, **cosine**: the worst of both encoders against the checkpoint in PyTorch, over the golden samples.
- **pixels**, **tokens**: whether they are identical to the checkpoint's own, bit for bit.
- **export**: seconds by the clock. The machine had other work during some rows; `load_1min` in the JSON tells how much.
- **peak**: resident memory of the whole command at its highest, and how many times the float32 weights that is.
  PyTorch and the other libraries alone take 0.8 GB of it, which is most of it for a small model.
- **TensorRT-RTX**: seconds and size of `clipdeploy build-engine` for the image and the text encoder, in float32, batch
  1 to 32, for compute capability 8.9, without a GPU; `-` where `python -m bench.models --engines` was not run."""


def page(results: Path = RESULTS) -> str:
    """The whole page."""
    record = json.loads(results.read_text("utf-8"))
    rows = [
        "| family | checkpoint | px | parameters, M | image nodes | text nodes | max abs | cosine | pixels | tokens "
        "| export | peak | TensorRT-RTX |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
        *(_row(row) for row in record["rows"]),
    ]
    env = record["environment"]
    libraries = ", ".join(f"{name} {version}" for name, version in env["libraries"].items())
    machine = f"{env['cpu']}, {env['cores']} cores, Python {env['python']}; {libraries}."
    return "\n\n".join((_HEAD, "\n".join(rows), machine)) + "\n"


def _row(row: dict[str, Any]) -> str:
    image, text = row["towers"]["image"], row["towers"]["text"]
    height, width = row["image_px"]
    tokens = "identical" if row["tokens_identical"] else "differ"
    cells = (
        row["family"],
        f"`{row['name']}`",
        str(height) if height == width else f"{height}x{width}",
        f"{image['parameters'] / 1e6:.1f} + {text['parameters'] / 1e6:.1f}",
        *(
            f"{'-' if tower['torch_nodes'] is None else tower['torch_nodes']} → {tower['nodes']}"
            for tower in (image, text)
        ),
        f"{max(image['max_abs'], text['max_abs']):.1e}",
        f"{min(image['cosine'], text['cosine']):.7f}",
        "identical" if row["pixels_identical"] else "differ",
        tokens if row["tokenizer"] == "CLIP" else f"{tokens}, small tokenizer",
        f"{row['seconds']:.0f} s",
        f"{row['peak_bytes'] / 1e9:.2f} GB, {row['peak_ratio']:.2f}x",
        model_engines.cell(row),
    )
    return f"| {' | '.join(cells)} |"


def merge(rows: list[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows with one of them new, in the order of the families."""
    order = {family.name: place for place, family in enumerate(FAMILIES)}
    kept = [old for old in rows if old["name"] != row["name"] and old["name"] in order]
    return sorted([*kept, row], key=lambda r: order[r["name"]])


def main() -> None:
    """Measure, one row after the other; or one of the steps of a row."""
    parser = parser_of("models", __doc__)
    names = [family.name for family in FAMILIES]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"rows to measure: {', '.join(names)}")
    parser.add_argument("--missing", action="store_true", help="measure the rows that the results lack")
    parser.add_argument("--engines", action="store_true", help="build the engines of rows that are there, no more")
    parser.add_argument("--page", action="store_true", help="write the page from the results, measure nothing")
    parser.add_argument("--scratch", type=Path, help="folder for checkpoints and bundles, on a disk with 12 GB free")
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--plain", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    families = {family.name: family for family in FAMILIES}
    if options.make:
        families[options.make[0]].write(Path(options.make[1]))
        return
    if options.plain:
        print(json.dumps(plain_nodes(Path(options.plain[1]))))
        return
    if options.scratch is not None:
        options.scratch.mkdir(parents=True, exist_ok=True)
    if options.engines:
        for name in options.only or [row["name"] for row in _rows()]:
            _add_engines(families[name], options.scratch)
    elif not options.page:
        done = {row["name"] for row in _rows()} if options.missing else set()
        for name in options.only or names:
            if name not in done:
                _measure_and_keep(families[name], options.scratch)
    write_text(PAGE, page())
    print(f"written {PAGE.relative_to(ROOT)}")


def _measure_and_keep(family: Family, scratch: Path | None) -> None:
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        row = measure(family, Path(folder))
    record = {"benchmark": "models", "environment": environment(os.cpu_count() or 1), "rows": merge(_rows(), row)}
    write_json(RESULTS, record)
    peak = f"{row['peak_bytes'] / 1e9:.2f} GB, {row['peak_ratio']:.2f}x the weights"
    print(f"{family.name}: {peak}, {row['seconds']:.0f} s; the row {time.perf_counter() - started:.0f} s", flush=True)


def _add_engines(family: Family, scratch: Path | None) -> None:
    """Into the row that is there, whose other numbers and environment stay."""
    if not model_engines.can_build():
        raise SystemExit("TensorRT for RTX is not installed: pip install 'clipdeploy[tensorrt-rtx]'")
    record = json.loads(RESULTS.read_text("utf-8"))
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        built = measure_engines(family, Path(folder))
    for row in record["rows"]:
        if row["name"] == family.name:
            row["tensorrt_rtx"] = built
            print(f"{family.name}: {model_engines.cell(row)}", flush=True)
    write_json(RESULTS, record)


def _rows() -> list[dict[str, Any]]:
    return json.loads(RESULTS.read_text("utf-8"))["rows"] if RESULTS.is_file() else []  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
