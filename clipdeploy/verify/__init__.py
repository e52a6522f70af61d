"""The parity ladder: whether a bundle, as it runs here, still is the checkpoint it was made from.

    bundle = Bundle.open("b32")
    with clipdeploy.load(bundle) as clip:
        report = verify(bundle, reference=GoldenReference(bundle), clip=clip)
    print(text_table(report))

Nothing here needs PyTorch but `CheckpointReference` and `write_golden`, which are handed a loaded checkpoint.
"""

from __future__ import annotations

from clipdeploy.runtime.selftest.gates import FP32_GATES, Gates
from clipdeploy.verify.baked import verify_baked
from clipdeploy.verify.golden import Golden, load_pictures, read_golden, write_golden
from clipdeploy.verify.golden_reference import GoldenReference
from clipdeploy.verify.ladder import verify
from clipdeploy.verify.page import write_html
from clipdeploy.verify.records import STAGES, Check, Finding, ParityReport, Sample, Stage
from clipdeploy.verify.reference import CheckpointReference, Picture, Reference
from clipdeploy.verify.report import from_json, rows, text_table, to_json

__all__ = [
    "FP32_GATES",
    "STAGES",
    "Check",
    "CheckpointReference",
    "Finding",
    "Gates",
    "Golden",
    "GoldenReference",
    "ParityReport",
    "Picture",
    "Reference",
    "Sample",
    "Stage",
    "from_json",
    "load_pictures",
    "read_golden",
    "rows",
    "text_table",
    "to_json",
    "verify",
    "verify_baked",
    "write_golden",
    "write_html",
]
