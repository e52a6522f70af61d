"""`clipdeploy bench` on a real GPU: copies apart, memory of the GPU told."""

from __future__ import annotations

import pytest

pytest.importorskip("onnx", reason="building engines needs the extra: pip install 'clipdeploy[engine]'")

from clipdeploy.benchmark.job import measure_bundle
from clipdeploy.benchmark.records import STAGES, BenchRequest
from clipdeploy.spec import Tower
from tests.gpu.conftest import Device, Workshop


def test_engines_are_measured_with_their_copies(workshop: Workshop, device: Device) -> None:
    for tower in Tower:
        workshop.build("fp32", tower)
    request = BenchRequest(
        workshop.folder,
        backends=(device.backend,),
        precisions=("fp32",),
        batches=(1, 8),
        rounds=2,
        seconds=0.1,
        cold_starts=1,
    )
    result = measure_bundle(request)
    (one,) = result.candidates
    assert not result.absent
    assert list(one.stages) and set(one.stages) == set(STAGES)
    apart = sum(one.stages[stage].p50_ms for stage in ("copy in", "encoder", "copy out"))
    assert apart == pytest.approx(one.images[0].latency.p50_ms, rel=0.5)
    assert [figures.batch for figures in one.images] == [figures.batch for figures in one.texts] == [1, 8]
    assert any(name.endswith("engine.plan") for name in one.files)
    assert result.environment["gpus"]
    assert one.memory.gpu is None or one.memory.gpu > 10_000_000
