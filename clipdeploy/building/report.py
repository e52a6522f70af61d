"""What a build did or would do, for programs and for people."""

from __future__ import annotations

from collections import Counter
from typing import Any

from clipdeploy.building.records import BuildOutcome, EngineOutcome, Plan
from clipdeploy.engine.records import LayerReport
from clipdeploy.engine_key import ENGINE_FILE, RECORD_FILE, EngineKey
from clipdeploy.spec import Tower, to_dict

ENGINE_HEAD = ("tower", "takes", "precision", "size", "seconds", "layers", "attention fused", "", "folder")


def engine_row(engine: EngineOutcome) -> tuple[str, ...]:
    """An engine in the columns of `ENGINE_HEAD`."""
    record = engine.record
    return (
        record.key.tower.value,
        takes(record.key),
        record.key.precision.value,
        f"{record.size_bytes / 1e6:.1f} MB",
        f"{record.build_seconds:.1f}",
        str(len(record.report.layers) or "-"),
        fused(record.report),
        "built" if engine.built else "there",
        engine.folder,
    )


def takes(key: EngineKey) -> str:
    """What goes into an engine, for people."""
    if key.frame is not None:
        return f"frames {key.frame}"
    return "pixels" if key.tower is Tower.IMAGE else "tokens"


def fused(report: LayerReport) -> str:
    """How many attention blocks became one layer, such as `12 of 12`."""
    if not report.attention_blocks:
        return "no attention"
    count = "?" if report.attention_fused is None else str(report.attention_fused)
    return f"{count} of {report.attention_blocks}"


def plan_rows(plan: Plan) -> list[tuple[str, str]]:
    """A plan as (name, value)."""
    rows = [("graph", plan.what + (", made first from the calibration data" if plan.quantise else ""))]
    if plan.key is None:
        rows.append(("key", "known when the graph is there: it holds the graph's hash"))
    else:
        rows += [("key", plan.key.name), *key_rows(plan)]
    if plan.folder is not None:
        rows.append(("files", "\n".join(f"{plan.folder}/{name}" for name in (ENGINE_FILE, RECORD_FILE))))
    if plan.there:
        rows.append(("state", "there already" + ("; would be built again" if plan.stages else ": nothing to do")))
    if plan.rewrites:
        rows.append(("rewritten", f"{', '.join(plan.rewrites)}, in a copy of the graph that the engine is built from"))
    if plan.stages:
        rows.append(("stages", "\n".join(plan.stages)))
    return rows


def key_rows(plan: Plan) -> list[tuple[str, str]]:
    """What a person asks first of a key."""
    key = plan.key
    if key is None:
        return []
    rows = [
        ("runs on", " ".join(f"sm_{c.replace('.', '')}" for c in key.compute_capabilities) or "unknown"),
        ("batch", "; ".join(map(str, key.profiles))),
        ("gpu", key.gpu),
        ("jetpack", key.jetpack),
        ("flags", " ".join(key.flags)),
    ]
    return [(name, value) for name, value in rows if value]


def document(outcome: BuildOutcome) -> dict[str, Any]:
    """The outcome as plain JSON types; layers are counted, the engine's own JSON lists them."""
    plain: dict[str, Any] = to_dict(
        {
            "bundle": str(outcome.bundle),
            "backend": outcome.backend,
            "version": outcome.version,
            "seconds": round(outcome.seconds, 3),
            "quantised": list(outcome.quantised),
            "plans": [] if outcome.engines else [to_dict(plan) for plan in outcome.plans],
            "engines": [_engine(engine) for engine in outcome.engines],
        }
    )
    return plain


def _engine(engine: EngineOutcome) -> dict[str, Any]:
    record = engine.record
    report = record.report
    return {
        "folder": engine.folder,
        "built": engine.built,
        "tower": record.key.tower,
        "precision": record.key.precision,
        "frame": record.key.frame,
        "key": record.key,
        "graph": record.graph,
        "size_bytes": record.size_bytes,
        "build_seconds": record.build_seconds,
        "created": record.created,
        "layers": {
            "source": report.source,
            "count": len(report.layers),
            "kinds": dict(Counter(layer.kind for layer in report.layers)),
            "outputs": dict(Counter(tensor.dtype for layer in report.layers for tensor in layer.outputs)),
        },
        "attention_blocks": report.attention_blocks,
        "attention_fused": report.attention_fused,
        "findings": list(record.findings),
        "warnings": list(record.warnings),
    }
