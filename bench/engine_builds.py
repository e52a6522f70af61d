"""What TensorRT for RTX makes of a model in each precision, built without a GPU: size, seconds, layers, attention.

    python -m bench.engine_builds [BUNDLE] [--model ViT-B-32] [--json FILE]
    python -m bench.engine_builds --page

Weights are random and the 8-bit ranges nobody measured: neither changes what is built. It says nothing of how fast an
engine is; that is bench.engines, on a GPU. `--page` writes the table of docs/engines.md from the committed result.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from bench.common import OUT, environment, parser_of, random_bundle, table, write_json
from bench.typed_graphs import add_typed
from clipdeploy.building.job import build_engines
from clipdeploy.building.records import BuildRequest
from clipdeploy.bundle import Bundle, write_text
from clipdeploy.engine.records import BuildOptions
from clipdeploy.engine_key import Profile
from clipdeploy.spec import Precision

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "engine_builds.json"
PAGE = ROOT / "docs" / "engines.md"
BEGIN, END = "<!-- written by python -m bench.engine_builds --page -->\n", "<!-- end -->"
HEAD = ("precision", "runs on", "encoder", "weights", "engine", "seconds", "layers", "attention in one layer")
BATCHES = Profile(1, 8, 32)


def main() -> None:
    """Build, print, write; or write the page."""
    parser = parser_of("engine_builds", __doc__)
    parser.add_argument("bundle", nargs="?", type=Path, help="bundle of --model; exported to out/bench when not given")
    parser.add_argument("--model", default="ViT-B-32", help="open_clip architecture")
    parser.add_argument("--json", type=Path, default=OUT / "engine_builds.json", help="result")
    parser.add_argument("--page", action="store_true", help="write docs/engines.md from bench/results, build nothing")
    options = parser.parse_args()
    if options.page:
        write_text(PAGE, with_table(PAGE.read_text(encoding="utf-8")))
        print(f"written to {PAGE}")
        return
    source = random_bundle(options.model, options.bundle)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "bundle"
        shutil.copytree(source, folder)
        rows = [row for precision in Precision for row in build(folder, precision, Path(scratch))]
    record = {"benchmark": "engine_builds", "environment": environment(1), "model": options.model, "rows": rows}
    write_json(options.json, record)
    print(table(HEAD, [cells(row) for row in rows]))
    print(f"\nwritten to {options.json}")


def build(folder: Path, precision: Precision, scratch: Path) -> list[dict[str, Any]]:
    """A row for each encoder of a bundle, in one precision."""
    if precision is not Precision.FP32:
        add_typed(folder, precision, scratch)
    options = BuildOptions(profiles=(BATCHES,))
    request = BuildRequest(folder, precision=precision.value, backend="tensorrt-rtx", options=options)
    bundle = Bundle.open(folder, check_hashes=False)
    rows = []
    for engine in build_engines(request).engines:
        record = engine.record
        rows.append(
            {
                "precision": precision.value,
                "tower": record.key.tower.value,
                "version": record.key.version,
                "compute_capabilities": list(record.key.compute_capabilities),
                "graph_bytes": bundle.manifest.files[record.graph].size_bytes,
                "engine_bytes": record.size_bytes,
                "seconds": round(record.build_seconds, 1),
                "layers": len(record.report.layers),
                "attention_blocks": record.report.attention_blocks,
                "attention_fused": record.report.attention_fused,
            }
        )
    return rows


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row in the columns of `HEAD`."""
    capabilities = row["compute_capabilities"]
    return (
        row["precision"],
        f"{capabilities[0]} to {capabilities[-1]}",
        row["tower"],
        f"{row['graph_bytes'] / 1e6:.1f} MB",
        f"{row['engine_bytes'] / 1e6:.1f} MB",
        f"{row['seconds']:.1f}",
        str(row["layers"]),
        f"{row['attention_fused']} of {row['attention_blocks']}",
    )


def with_table(page: str) -> str:
    """The page with its table as the committed result says."""
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    env, rows = result["environment"], [cells(row) for row in result["rows"]]
    lines = [f"| {' | '.join(line)} |" for line in (HEAD, ["---"] * len(HEAD), *rows)]
    lines.append("")
    lines.append(
        f"{result['model']}, random weights, batch {BATCHES.smallest} to {BATCHES.largest}, TensorRT for RTX "
        f"{result['rows'][0]['version']}, {env['cores']} cores of a {env['cpu']}, no GPU; the load was "
        f"{env['load_1min']:.1f} when it began."
    )
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n\n{END}{rest.split(END, 1)[1]}"


if __name__ == "__main__":
    main()
