"""`clipdeploy inspect`: what is in a bundle, an engine, a graph or a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipdeploy.cli import options
from clipdeploy.cli.bank import templates_text
from clipdeploy.cli.console import Console
from clipdeploy.cli.exit_codes import ExitCode
from clipdeploy.cli.findings import findings_text, summary
from clipdeploy.cli.verb import Verb
from clipdeploy.engine_key import EngineKey
from clipdeploy.findings import worst
from clipdeploy.inspect import BundleInfo, CheckpointInfo, EngineInfo, EngineSummary, GraphInfo, ParitySummary
from clipdeploy.request import CheckpointRequest
from clipdeploy.spec import BakedSpec, ModelSpec, TensorSpec, to_dict
from clipdeploy.text import one_line, pairs, plural, size, table

if TYPE_CHECKING:
    from clipdeploy.runtime.stored_banks import BankInfo

_NAMED = 8

EXAMPLES = (
    "clipdeploy inspect b32",
    "clipdeploy inspect b32/visual.onnx --json",
    "clipdeploy inspect b32/engines/visual_fp16_tensorrt-10.3.0_sm87_1f0c93aa",
    "clipdeploy inspect ViT-B-32 --pretrained finetuned.safetensors",
)


@click.command(cls=Verb, examples=EXAMPLES)
@click.argument("path")
@click.option("--no-hashes", is_flag=True, help="Compare a bundle's files by size only, not by sha256.")
@options.checkpoint
def inspect(console: Console, path: str, no_hashes: bool, stated: dict[str, Any]) -> ExitCode:
    """Show what is in a bundle, a TensorRT engine, an ONNX graph or a checkpoint.

    PATH is a bundle's folder, an engine's folder inside it, an .onnx file, or a checkpoint as export
    takes it, with the same options. Every file of a bundle is checked against its sha256. A graph
    and a checkpoint need the extra export.

    An engine is shown as its record tells it: what it is tied to, how it was made, its layers by
    kind and type, and whether it is what was asked for.

    A checkpoint is loaded and looked at, not exported: what export would refuse, and what it would
    only note. Exit code 1 when something is bad.
    """
    from clipdeploy.inspect import inspect_checkpoint, inspect_path, kind_of

    kind = kind_of(path)
    if kind == "checkpoint":
        if no_hashes:
            raise click.UsageError("--no-hashes goes with a bundle.")
        checkpoint = inspect_checkpoint(CheckpointRequest(path, **stated), progress=console.progress)
        state = worst(checkpoint.findings)
        console.result({"kind": kind, "state": state, **to_dict(checkpoint)}, _checkpoint_text(checkpoint))
        return ExitCode.FAILED if state == "bad" else ExitCode.OK
    if any(stated.values()):
        what = "an engine" if kind == "engine" else f"a {kind}"
        raise click.UsageError(f"{path} is {what}; the options that say what a checkpoint is go with a checkpoint.")
    info = inspect_path(Path(path), check_hashes=not no_hashes)
    if isinstance(info, EngineInfo):
        state = worst(info.record.findings)
        console.result({"kind": kind, "state": state, **to_dict(info)}, _engine_text(info))
        return ExitCode.FAILED if state == "bad" else ExitCode.OK
    if isinstance(info, BundleInfo):
        console.result({"kind": kind, **to_dict(info)}, _bundle_text(info, checked=not no_hashes))
    else:
        console.result({"kind": kind, **to_dict(info)}, _graph_text(info))
    return ExitCode.OK


def _bundle_text(info: BundleInfo, *, checked: bool) -> str:
    facts = [
        *_model_facts(info.model),
        ("embedding space", info.embedding_space),
        ("precisions", "; ".join(f"{tower} {', '.join(have) or 'none'}" for tower, have in info.precisions.items())),
        *([("frames", "\n".join(map(str, info.frames)))] if info.frames else []),
        *(_baked(info.baked, info.model) if info.baked else []),
        *([("engines", "\n".join(map(_engine, info.engines)))] if info.engines else []),
        ("checkpoint", f"{info.provenance.source}, licence {info.provenance.licence or 'not stated'}"),
        ("made", f"{info.provenance.created} with " + ", ".join(f"{k} {v}" for k, v in info.tools.items())),
        *([("banks", "\n".join(map(_bank, info.banks)))] if info.banks else []),
        *([] if info.baked else [("parity", _parity(info.parity)), ("preflight", _notes(info))]),
    ]
    state = "sha256 right" if checked else "sizes right"
    files = [
        (name, size(e.size_bytes), e.kind, e.precision.value if e.precision else "", f"{e.opset or ''}", e.sha256[:12])
        for name, e in info.files.items()
    ]
    return "\n".join(
        [
            f"bundle {info.path}",
            pairs(facts),
            "",
            f"{plural(len(files), 'file')}, {size(info.size_bytes)}, all there, {state}",
            table(("name", "size", "kind", "precision", "opset", "sha256"), files, right=(1, 4)),
        ]
    )


def _model_facts(model: ModelSpec) -> list[tuple[str, str]]:
    pixels, tokens = model.pixels, model.tokens
    resize = "shortest side, then centre crop" if pixels.resize == "shortest" else "both sides"
    at_most = " at most, fewer are computed of shorter ones" if model.text.any_length else ""
    return [
        ("model", f"{model.name}, D = {model.embed_dim}, {model.activation}"),
        ("image tower", f"{model.image.architecture}, {model.image.parameters / 1e6:.1f} M parameters"),
        ("text tower", f"{model.text.architecture}, {model.text.parameters / 1e6:.1f} M parameters"),
        ("pixels", f"{pixels.width} x {pixels.height} px, {pixels.interpolation}, {resize}"),
        ("", f"mean {_numbers(pixels.mean)}, std {_numbers(pixels.std)}"),
        ("tokens", f"{tokens.context_length} a text{at_most}, {tokens.vocab_size} in the vocabulary"),
        ("", f"cleaning {tokens.cleaning}, pooling {tokens.pooling}"),
        ("logits", f"{model.logit_scale:.6g} * cosine + {model.logit_bias:.6g}, {model.probability}"),
    ]


def _checkpoint_text(info: CheckpointInfo) -> str:
    if info.model is None:
        return f"checkpoint {info.source}: refused\n{findings_text(info.findings)}"
    facts = [
        *_model_facts(info.model),
        ("weights", f"sha256 {info.weights_sha256}"),
        ("licence", info.licence or "not stated"),
    ]
    shown = [f"checkpoint {info.source}", pairs(facts), "", summary(info.findings), findings_text(info.findings)]
    return "\n".join(shown)


def _engine(engine: EngineSummary) -> str:
    key = engine.key
    what = f"{key.tower.value} {key.precision.value}" + (f" of frames {key.frame}" if key.frame else "")
    where = ", ".join(key.compute_capabilities)
    stale = ", stale: its graph is another one now" if engine.stale else ""
    return f"{what}, {key.backend} {key.version} for {where}, {size(engine.size_bytes)}{stale}"


def _bank(bank: BankInfo) -> str:
    return f"{plural(len(bank.labels), 'label')} with {templates_text(bank.templates)}, {', '.join(bank.made_by)}"


def _baked(baked: BakedSpec, model: ModelSpec) -> list[tuple[str, str]]:
    """What a baked graph takes and gives."""
    given, answer = model.image.input, model.image.output
    more = f"\nprobabilities float32 ({', '.join(map(str, answer.shape))})" if baked.labels else ""
    facts = [("baked", f"{_tensor(given)} to {_tensor(answer)}{more}")]
    if baked.labels:
        named = ", ".join(one_line(label) for label in baked.labels[:_NAMED])
        rest = f" and {len(baked.labels) - _NAMED} more" if len(baked.labels) > _NAMED else ""
        facts += [("labels", f"{len(baked.labels)}: {named}{rest}"), ("templates", templates_text(baked.templates))]
    return facts


def _notes(info: BundleInfo) -> str:
    """What was found of the checkpoint: a sum, and what is not good."""
    if not info.findings:
        return "not in the bundle"
    notes = [f"{one.check}: {one.message}" for one in info.findings if one.state != "good"]
    return "\n".join([summary(info.findings), *notes])


def _parity(parity: ParitySummary | None) -> str:
    """The parity report that the bundle carries, in a few lines."""
    if parity is None:
        return "no report in the bundle; run clipdeploy verify"
    against = "the checkpoint" if parity.reference == "pytorch" else "the golden samples"
    outcome = "all stages hold" if parity.passed else f"first drift: {parity.first_drift}"
    lines = [f"{outcome}, {parity.precision} against {against}, {parity.backend}"]
    for stage in ("image_tower", "text_tower"):
        checks = parity.measured.get(stage, {})
        worst, cosine = checks.get("max abs, in batches"), checks.get("cosine")
        if worst is not None and cosine is not None:
            lines.append(f"{stage.replace('_', ' ')}: max abs {worst:.1e}, cosine {cosine:.7f}")
    return "\n".join(lines)


def _graph_text(info: GraphInfo) -> str:
    facts = [
        ("made by", info.producer or "not stated"),
        ("opset", ", ".join(f"{domain} {version}" for domain, version in info.opsets.items())),
        ("inputs", "\n".join(map(_tensor, info.inputs))),
        ("outputs", "\n".join(map(_tensor, info.outputs))),
        ("constants", f"{plural(info.initializers, 'tensor')}: " + _sizes(info.initializer_bytes)),
        ("file", size(info.size_bytes) + (f", weights in {', '.join(info.external)}" if info.external else "")),
    ]
    nodes = table(("operator", "nodes"), [(op, str(count)) for op, count in info.nodes.items()], right=(1,))
    return "\n".join([f"graph {info.path}", pairs(facts), "", f"{plural(sum(info.nodes.values()), 'node')}", nodes])


def _engine_text(info: EngineInfo) -> str:
    record, key = info.record, info.record.key
    facts = [
        ("engine", f"{key.tower.value} tower in {key.precision.value}, from {record.graph}"),
        *([("frames", f"{key.frame}, from {key.frame.graph_name}, in float32")] if key.frame else []),
        ("built by", f"{key.backend} {key.version} on {key.platform}, {record.created}, {record.build_seconds:.1f} s"),
        ("runs on", _runs_on(key)),
        ("batch", "; ".join(f"{p.smallest} to {p.largest}, tuned for {p.usual}" for p in key.profiles)),
        ("flags", ", ".join(key.flags) or "none"),
        ("graph", f"sha256 {key.graph_sha256}"),
        ("file", size(record.size_bytes)),
        ("tools", ", ".join(f"{name} {version}" for name, version in record.tools.items())),
    ]
    shown = [f"engine {info.path.parent}", pairs(facts), "", *_layers_text(info)]
    if record.findings:
        shown += ["", summary(record.findings), findings_text(record.findings)]
    if record.warnings:
        shown += ["", f"{plural(len(record.warnings), 'warning')} of the builder"]
        shown += [f"  {one_line(warning)}" for warning in record.warnings]
    return "\n".join(shown)


def _runs_on(key: EngineKey) -> str:
    parts = [f"compute capability {', '.join(key.compute_capabilities)}"] if key.compute_capabilities else []
    parts += [key.gpu] if key.gpu else []
    parts += [f"JetPack {key.jetpack}"] if key.jetpack else []
    return ", ".join(parts)


def _layers_text(info: EngineInfo) -> list[str]:
    report = info.record.report
    if not report.layers:
        return ["layers: neither the builder nor the engine told"]
    head = f"{plural(len(report.layers), 'layer')}, as the {report.source} tells"
    if report.attention_blocks:
        fused = "?" if report.attention_fused is None else report.attention_fused
        head += f"; {fused} of {plural(report.attention_blocks, 'attention block')} in one layer each"
    rows = [(k.kind, *map(_types, (k.reads, k.constants, k.writes)), str(k.count)) for k in info.kinds]
    return [head, table(("kind", "reads", "constants", "writes", "layers"), rows, right=(4,))]


def _types(names: tuple[str, ...]) -> str:
    return " ".join(names) or "-"


def _tensor(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.dtype} ({', '.join(map(str, spec.shape))})"


def _sizes(by_dtype: dict[str, int]) -> str:
    return ", ".join(f"{dtype} {size(count)}" for dtype, count in by_dtype.items()) or "none"


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
