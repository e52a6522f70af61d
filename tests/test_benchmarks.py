"""The benchmarks of the runtime run, as far as a machine without a GPU can tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the benchmarks compare with PyTorch")
pytest.importorskip("onnxruntime")

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_gpu_script_goes_all_the_way_without_one(tmp_path: Path) -> None:
    """What cannot run here is listed with its reason; the rest is timed."""
    from bench.gpu import CEILING, CUDA_EP, EAGER, absent_text, gpu_table
    from bench.gpu_peers import OURS

    env = {**os.environ, "PYTHONPATH": str(ROOT), "CLIPDEPLOY_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "bench.gpu", "--dry-run", "--no-compile", "--json", "gpu.json"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert record["dry_run"] is True
    for row in record["batches"].values():
        assert {EAGER} <= row["host_ms"].keys()
        assert {EAGER, CEILING} <= row["device_ms"].keys()
        ours = {f"clipdeploy, {backend} {precision}" for backend, precision in OURS}
        assert ours | {CUDA_EP} <= row["absent"].keys() | row["host_ms"].keys()
        assert all(row["absent"].values())
    assert CEILING in gpu_table(record)
    assert "Not run: clipdeploy, tensorrt fp16: " in absent_text(record)


def test_the_products_of_an_encoder_are_those_that_it_does() -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from bench.common import checkpoint_of
    from bench.products import products_alone, products_of
    from clipdeploy.demo import model_path
    from clipdeploy.export.load import load_checkpoint

    network = load_checkpoint(checkpoint_of(f"local-dir:{model_path('vit')}")).model.eval()
    pixels = torch.zeros(2, 3, 64, 64)
    products = products_of(network, tuple(pixels.shape))
    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not see into the fused attention
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network.encode_image(pixels)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert sum(one.flop for one in products) == counter.get_total_flops()
    qkv = [one for one in products if one.columns == 3 * one.inner]
    assert qkv and all(one.batch == 1 for one in qkv)  # one product with the weights of all pictures, not one each
    products_alone(products, "cpu", torch.float32)()


def test_a_ratio_is_of_paired_rounds() -> None:
    from bench.common import ratio

    found = ratio([[2.0, 4.0, 9.0], [6.0, 6.0, 6.0], [1.0, 1.0, 1.0]], [[2.0, 2.0, 2.0], [3.0, 3.0, 3.0], [2.0] * 3])
    assert (found.median, found.least, found.most, found.fastest) == (2.0, 0.5, 2.0, 0.5)


def test_only_turns_between_two_fast_probes_are_at_full_speed() -> None:
    from bench.common import at_full_speed

    samples = {"a": [[1.0], [2.0]], "b": [[3.0], [4.0]]}  # the second round begins with b
    assert at_full_speed(samples, [[5.0, 6.0, 9.0], [5.0, 5.0, 6.2]], ["a", "b"]) == {"a": [1.0, 2.0], "b": [4.0]}
    assert at_full_speed(samples, [[5.0, 6.3, 5.0], [9.0, 5.0, 9.0]], ["a", "b"]) == {"a": [], "b": []}


def test_in_rounds_probes_before_each_turn_and_after_the_last() -> None:
    from bench.common import in_rounds

    probes: list[list[float]] = []
    answers = iter(range(100))
    samples = in_rounds(
        {"a": lambda: None, "b": lambda: None},
        rounds=2,
        calls=3,
        rest_s=0,
        warm_up_s=0,
        probe=lambda: float(next(answers)),
        probes=probes,
    )
    assert probes == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert {name: [len(one) for one in runs] for name, runs in samples.items()} == {"a": [3, 3], "b": [3, 3]}


def test_the_verdict_says_what_was_missed() -> None:
    from bench.pages.runtime import EAGER, best_of_ours, verdicts

    ours = "clipdeploy, onnxruntime fp32"
    row = {
        "encode_ms": {EAGER: {"median_ms": 60.0}, ours: {"median_ms": 30.0}},
        "to_bare": {ours: {"bare": "ONNX Runtime fp32", "median": 1.04}},
        "times_pytorch": {ours: {"median": 2.0}},
        "absent": {"torch.compile fp32": "no compiler"},
        "probe_ms": [[5.0, 6.0, 13.0]],
        "at_full_speed": {EAGER: {"median_ms": 60.0}, ours: {"median_ms": 8.0}},
    }
    record = {"model": "ViT-B-32", "batches": {"1": row}, "auto": {}}
    told = verdicts(record)
    assert "0 of 1 hold; the slowest is 1.040" in told
    assert "2.00x PyTorch eager, asked for 7x: missed" in told
    assert "took 5.0 ms at best, 6.0 in the middle, 13.0 at worst" in told
    assert f"at its best, batch 1: {ours}, 7.50x, asked for 7x: holds" in told
    assert "Not run: torch.compile fp32. No compiler." in told
    assert best_of_ours(record) == [("batch 1", "60.0 ms", "30.0 ms, onnxruntime fp32", "2.0x")]
