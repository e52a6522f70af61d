"""`clipdeploy inspect`: what is in a bundle or a graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from clipdeploy.cli import options
from clipdeploy.cli.console import Console
from clipdeploy.cli.text import pairs, plural, size, table
from clipdeploy.cli.verb import Verb
from clipdeploy.inspect import BundleInfo, GraphInfo, ParitySummary
from clipdeploy.spec import TensorSpec, to_dict


@click.command(cls=Verb, examples=("clipdeploy inspect b32", "clipdeploy inspect b32/visual.onnx --json"))
@click.argument("path", type=options.PATH)
@click.option("--no-hashes", is_flag=True, help="Compare the files' sizes only, not their sha256.")
def inspect(console: Console, path: Path, no_hashes: bool) -> None:
    """Show what is in a bundle or an ONNX graph.

    PATH is a bundle's folder, or an .onnx file. Every file of a bundle is checked against its
    sha256. A graph needs the extra export.
    """
    from clipdeploy.inspect import inspect_path

    info = inspect_path(path, check_hashes=not no_hashes)
    if isinstance(info, BundleInfo):
        console.result({"kind": "bundle", **_bundle_json(info)}, _bundle_text(info, checked=not no_hashes))
    else:
        console.result({"kind": "graph", **to_dict(info)}, _graph_text(info))


def _bundle_json(info: BundleInfo) -> dict[str, Any]:
    document = to_dict(info)
    assert isinstance(document, dict)
    return document


def _bundle_text(info: BundleInfo, *, checked: bool) -> str:
    model, pixels, tokens = info.model, info.model.pixels, info.model.tokens
    resize = "shortest side, then centre crop" if pixels.resize == "shortest" else "both sides"
    facts = [
        ("model", f"{model.name}, D = {model.embed_dim}, {model.activation}"),
        ("image tower", f"{model.image.architecture}, {model.image.parameters / 1e6:.1f} M parameters"),
        ("text tower", f"{model.text.architecture}, {model.text.parameters / 1e6:.1f} M parameters"),
        ("pixels", f"{pixels.width} x {pixels.height} px, {pixels.interpolation}, {resize}"),
        ("", f"mean {_numbers(pixels.mean)}, std {_numbers(pixels.std)}"),
        ("tokens", f"{tokens.context_length} a text, {tokens.vocab_size} in the vocabulary"),
        ("", f"cleaning {tokens.cleaning}, pooling {tokens.pooling}"),
        ("logits", f"{model.logit_scale:.6g} * cosine + {model.logit_bias:.6g}, {model.probability}"),
        ("embedding space", info.embedding_space),
        ("precisions", "; ".join(f"{tower} {', '.join(have) or 'none'}" for tower, have in info.precisions.items())),
        ("checkpoint", f"{info.provenance.source}, licence {info.provenance.licence or 'not stated'}"),
        ("made", f"{info.provenance.created} with " + ", ".join(f"{k} {v}" for k, v in info.tools.items())),
        ("parity", _parity(info.parity)),
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


def _tensor(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.dtype} ({', '.join(map(str, spec.shape))})"


def _sizes(by_dtype: dict[str, int]) -> str:
    return ", ".join(f"{dtype} {size(count)}" for dtype, count in by_dtype.items()) or "none"


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
