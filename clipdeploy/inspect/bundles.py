"""What is in a bundle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipdeploy.bundle import Bundle, FileEntry, Provenance
from clipdeploy.engine_key import EngineKey
from clipdeploy.errors import BundleCorruptError, InputError
from clipdeploy.findings import Finding
from clipdeploy.spec import BakedSpec, FrameSpec, ModelSpec, Tower, from_dict

if TYPE_CHECKING:
    from clipdeploy.runtime.stored_banks import BankInfo

PARITY_JSON = "report/parity.json"
PREFLIGHT_JSON = "report/preflight.json"
_PARITY_FIELDS = ("passed", "first_drift", "reference", "created", "precision", "backend")


@dataclass(frozen=True)
class ParitySummary:
    """What the parity report in a bundle says.

    Attributes:
        first_drift: the first stage that fails, None when all pass.
        reference: `pytorch`, the checkpoint; or `golden`, the samples in the bundle.
        measured: stage -> check -> value, such as `image_tower` -> `cosine` -> 0.9999999.
    """

    passed: bool
    first_drift: str | None
    reference: str
    created: str
    precision: str
    backend: str
    measured: dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class EngineSummary:
    """An engine in a bundle.

    Attributes:
        name: of its folder below `engines/`.
        key: what it is tied to.
        size_bytes: of the engine file.
        stale: whether its graph is no longer in the bundle, so that nothing loads it.
    """

    name: str
    key: EngineKey
    size_bytes: int
    stale: bool


@dataclass(frozen=True)
class BundleInfo:
    """What is in a bundle.

    Attributes:
        precisions: per tower (`image`, `text`), those there is a graph of, with what it is made for where that is told.
        frames: camera frames that there is a graph for.
        baked: what its image graph answers by itself, None in bundles that are not baked.
        engines: built from its graphs, by the names of their folders.
        parity: of the report that the bundle carries, None where it has none.
        banks: the labels that were embedded, a bank for each list of templates.
        findings: what was found of the checkpoint before it was exported; empty where the bundle does not tell.
        size_bytes: of all files together.
    """

    path: Path
    model: ModelSpec
    embedding_space: str
    provenance: Provenance
    tools: dict[str, str]
    files: dict[str, FileEntry]
    precisions: dict[str, tuple[str, ...]]
    frames: tuple[FrameSpec, ...]
    baked: BakedSpec | None
    engines: tuple[EngineSummary, ...]
    parity: ParitySummary | None
    banks: tuple[BankInfo, ...]
    findings: tuple[Finding, ...]
    size_bytes: int


def inspect_bundle(folder: Path, *, check_hashes: bool = True) -> BundleInfo:
    """What is in the bundle at `folder`; every file against its sha256 if `check_hashes`."""
    from clipdeploy.runtime.engines import engines_of, stale_engines
    from clipdeploy.runtime.stored_banks import banks_of

    bundle = Bundle.open(folder, check_hashes=check_hashes)
    manifest, stale = bundle.manifest, stale_engines(bundle)
    return BundleInfo(
        path=folder,
        model=manifest.model,
        embedding_space=manifest.embedding_space,
        provenance=manifest.provenance,
        tools=manifest.tools,
        files=manifest.files,
        precisions={tower.value: _precisions(bundle, tower) for tower in Tower},
        frames=tuple(bundle.frames()),
        baked=manifest.baked,
        engines=tuple(
            EngineSummary(name, entry.key, entry.size_bytes, name in stale)
            for name, entry in engines_of(bundle).items()
        ),
        parity=_parity(bundle),
        banks=banks_of(bundle),
        findings=_findings(bundle),
        size_bytes=sum(entry.size_bytes for entry in manifest.files.values()),
    )


def _precisions(bundle: Bundle, tower: Tower) -> tuple[str, ...]:
    return tuple(
        f"{precision.value} for {target}" if target else precision.value
        for precision in bundle.precisions(tower)
        for target in bundle.targets(tower, precision)
    )


def _parity(bundle: Bundle) -> ParitySummary | None:
    if PARITY_JSON not in bundle.manifest.files:
        return None
    path = bundle.path(PARITY_JSON)
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        return ParitySummary(
            **{name: report[name] for name in _PARITY_FIELDS},
            measured={s["name"]: {c["name"]: c["value"] for c in s["checks"]} for s in report["stages"]},
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BundleCorruptError(f"{path} is no parity report: {error!r}", fix="export the checkpoint again") from error


def _findings(bundle: Bundle) -> tuple[Finding, ...]:
    if PREFLIGHT_JSON not in bundle.manifest.files:
        return ()
    path = bundle.path(PREFLIGHT_JSON)
    try:
        return tuple(from_dict(Finding, one) for one in json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, InputError) as error:
        raise BundleCorruptError(
            f"{path} is no list of findings: {error}", fix="export the checkpoint again"
        ) from error
