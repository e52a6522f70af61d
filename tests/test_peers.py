"""bench.peers: the catalogue, a run with peers that are made up, and what its page says."""

from __future__ import annotations

import ast
import shutil
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.peers import steady
from bench.peers.catalogue import HOSTS, NOT_TAKEN, PEERS, Mode, Peer, chosen
from bench.peers.gguf import write_gguf
from bench.peers.processes import Process
from bench.peers.record import absent_of, installed_of, rows_of
from bench.peers.run import run
from bench.peers.steady import FullSpeed
from bench.peers.turns import Row, Work, take_turns
from bench.peers.venvs import NotInstalledError, Venv, venv_of
from bench.peers.work import texts_of
from clipdeploy.errors import BackendError

STUB = """
import hashlib, os, sys, time
sys.path.insert(0, {hosts!r})
from frame import serve

class Stub:
    def __init__(self, checkpoint, threads):
        self.word = (checkpoint / "word").read_text()

    def mode(self, **settings):
        if settings.get("breaks") == "loading":
            raise ValueError("it has no such mode")
        return Mode(settings)

class Mode:
    def __init__(self, settings):
        self.settings = settings

    def rows(self, items):
        if self.settings.get("breaks") == "process":
            os._exit(3)
        for item in items:
            time.sleep(self.settings["ms"] / 1e3)
        return [self.row(item) for item in items]

    def row(self, item):
        numbers = [byte - 128.0 for byte in hashlib.sha256(os.path.basename(item).encode()).digest()]
        off = self.settings.get("off", 0.0)
        return [number + off * 50.0 * (-1) ** i for i, number in enumerate(numbers)]

    def files(self, paths, batch):
        return self.rows(paths)

    def file(self, path):
        return self.rows([path])

    def texts(self, texts, batch):
        return self.rows(texts)

serve(Stub)
"""


def test_every_peer_has_a_host_and_names_of_its_own() -> None:
    assert len({peer.name for peer in PEERS}) == len({peer.folder for peer in PEERS}) == len(PEERS)
    for peer in PEERS:
        assert (HOSTS / peer.host).is_file(), peer.name
        assert len({mode.name for mode in peer.modes}) == len(peer.modes) > 0
        assert all(mode.computes in ("fp32", "bf16", "int8") for mode in peer.modes)
        assert peer.requirements
        assert peer.modes[0].single, f"{peer.name}: the first mode also answers for the first answer"
    for one in NOT_TAKEN:
        assert one.why


def test_the_peers_that_were_asked_for_take_part() -> None:
    asked = ("open_clip", "transformers", "optimum-onnx", "ONNX Runtime", "OpenVINO", "faster-clip")
    assert {*asked} <= {peer.name for peer in PEERS}
    assert "torch.compile" in {mode.name for peer in PEERS if peer.name == "open_clip" for mode in peer.modes}


def test_requirements_are_pinned() -> None:
    for peer in PEERS:
        named = [one for one in peer.requirements if one.split("[")[0].lower() in (peer.name.lower(), "torch")]
        assert all("==" in one for one in named), peer.name


def test_chosen_names_the_unknown() -> None:
    assert [peer.name for peer in chosen(["faster"])] == ["faster-clip"]
    assert chosen([]) == PEERS
    with pytest.raises(SystemExit, match="no peer is called slower-clip; there are"):
        chosen(["slower-clip"])


@pytest.mark.parametrize("host", sorted(HOSTS.glob("*.py")), ids=lambda path: path.name)
def test_hosts_import_nothing_heavy_before_they_are_asked(host: Path) -> None:
    """What a host imports at its top would not count as import and first answer in the right process."""
    allowed = {*sys.stdlib_module_names, "frame"}
    for node in ast.parse(host.read_text(encoding="utf-8")).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert {name.split(".")[0] for name in names} <= allowed
    assert host.name == "frame.py" or host.name in {peer.host for peer in PEERS}


def _stubs(folder: Path, modes: tuple[Mode, ...], name: str = "stub", **more: Any) -> list[Row]:
    script = folder / f"{name}_host.py"
    script.write_text(STUB.format(hosts=str(HOSTS)), encoding="utf-8")
    (folder / "word").write_text("here", encoding="utf-8")
    peer = Peer(name, "made up", ("nothing==1",), str(script), "bundle", modes, **more)
    process = Process(peer, Path(sys.executable), folder, threads=1)
    return [Row(peer, mode, process) for mode in modes]


WORK = Work([f"{i}.jpg" for i in range(6)], texts_of(12), batch=2, text_batch=3, singles=2, rounds=2)


FAST = Mode("fast", {"ms": 1}, computes="int8")


def test_a_whole_run_with_peers_that_are_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.peers.turns.REST_S", 0.0)
    monkeypatch.setattr("bench.peers.starts.REST_S", 0.0)
    monkeypatch.setattr("bench.peers.run._free_bytes", lambda: 1e12)
    rows = [
        *_stubs(tmp_path, (Mode("exact", {"ms": 3}), Mode("near", {"ms": 2, "off": 0.2})), "theirs"),
        *_stubs(
            tmp_path, (Mode("fast", {"ms": 1}, computes="int8"), Mode("far", {"ms": 1, "off": 4.0})), "ours", ours=True
        ),
        *_stubs(tmp_path, (Mode("broken", {"ms": 1, "breaks": "loading"}),), "broken"),
        *_stubs(tmp_path, (Mode("dead", {"ms": 1, "breaks": "process"}), Mode("alive", {"ms": 4})), "half"),
        *_stubs(tmp_path, (Mode("mute", {"ms": 4}),), "mute", no_texts="it has no text encoder"),
    ]
    exact, starts = run(rows, WORK, starts=2, probe=lambda: 1.0, reference="theirs, exact")

    assert "it has no such mode" in absent_of(rows)["broken, broken"]
    assert "exit code 3" in absent_of(rows)["half, dead"]
    assert exact["ours, fast"].gate == exact["ours, fast"].texts_gate == "float32"
    assert exact["theirs, near"].gate == "few bits"
    assert exact["ours, far"].gate is None
    assert exact["mute, mute"].texts_gate is None
    assert [len(starts[name].seconds) for name in ("ours, fast", "ours, far", "theirs, exact")] == [2, 2, 2]
    assert "theirs, near" not in starts

    told = {f"{row['peer']}, {row['mode']}": row for row in rows_of(rows, exact, starts)}
    assert set(told) == {"theirs, exact", "theirs, near", "ours, fast", "ours, far", "half, alive", "mute, mute"}
    fast = told["ours, fast"]
    assert len(fast["folder_ms"]) == len(fast["single_ms"]) == len(fast["text_ms"]) == 2
    assert fast["folder_ms"][0] < told["theirs, exact"]["folder_ms"][0]
    assert told["mute, mute"]["text_ms"] == []
    assert fast["memory"]["peak"] >= fast["memory"]["resident"] > 0 or sys.platform == "win32"


class Machine:
    """A probe that takes 5 ms, but for the `slow` ones, counted from the first that is asked for."""

    def __init__(self, *slow: int) -> None:
        self.asked, self.slow = 0, slow

    def __call__(self) -> float:
        self.asked += 1
        return 12.0 if self.asked in self.slow else 5.0


def test_a_turn_waits_for_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "_POLL_S", 0.0)
    machine = Machine(21, 22, 23)
    speed = FullSpeed(machine)
    assert speed.wait() == 5.0
    assert machine.asked == 24
    machine.slow = tuple(range(25, 10_000_000))
    monkeypatch.setattr(steady, "_LONGEST_WAIT_S", 0.01)
    assert speed.wait() == 12.0, "waits for ever"
    asked = machine.asked
    impatient = FullSpeed(Machine(*range(21, 1000)), patience_s=0.0)
    assert impatient.wait() == 12.0
    assert asked == machine.asked


@pytest.mark.parametrize(("slow", "again"), [((), 0), ((22,), 1), ((22, 24), 2), ((22, 24, 26), 2)])
def test_a_turn_that_ends_on_a_slow_machine_is_taken_again(
    tmp_path: Path, slow: tuple[int, ...], again: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three times at most; what is kept of it is the last."""
    monkeypatch.setattr("bench.peers.turns.REST_S", 0.0)
    (row,) = _stubs(tmp_path, (Mode("alive", {"ms": 0}, texts=False, single=False),))
    row.pictures = 2
    with row.process:
        take_turns([row], replace(WORK, rounds=1), FullSpeed(Machine(*slow)))
    assert (len(row.folder_ms), row.again) == (1, again)
    assert row.probes_ms == [12.0 if len(slow) == 3 else 5.0]


def test_a_process_that_died_is_started_anew(tmp_path: Path) -> None:
    (row,) = _stubs(tmp_path, (Mode("alive", {"ms": 0}),))
    with row.process as process:
        with pytest.raises(BackendError, match="exit code 3"):
            process.ask("folder", settings={"ms": 0, "breaks": "process"}, paths=["a"], batch=1)
        assert process.ask("folder", settings={"ms": 0}, paths=["a"], batch=1) >= 0.0


def test_gguf_is_laid_out_as_its_readers_expect(tmp_path: Path) -> None:
    sizes = {"hidden_size": 4, "intermediate_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1}
    common = {**sizes, "layer_norm_eps": 1e-5, "hidden_act": "quick_gelu"}
    config = {
        "text_config": {**common, "max_position_embeddings": 7},
        "vision_config": {**common, "image_size": 8, "patch_size": 4},
        "projection_dim": 3,
        "image_mean": (0.5,) * 3,
        "image_std": (0.5,) * 3,
    }
    weight = np.arange(32, dtype=np.float32).reshape(8, 4)
    tensors = {
        "text_model.encoder.layers.0.mlp.fc1.weight": weight,
        "vision_model.embeddings.patch_embedding.weight": np.ones((4, 3, 2, 2), np.float32),
        "logit_scale": np.ones((), np.float32),
    }
    path = tmp_path / "model.gguf"
    write_gguf(path, tensors, ["a", "b"], config, half=False)
    data = path.read_bytes()
    magic, version, count, _ = struct.unpack_from("<4sIQQ", data)
    assert (magic, version, count) == (b"GGUF", 2, 2)
    assert len(data) % 32 == 0
    assert b"t.blk.0.ffn_down.weight" in data and b"v.patch_embd.weight" in data
    assert data.endswith(np.ones(48, np.float16).tobytes())
    start = data.index(weight.tobytes())
    assert start % 32 == 0


def test_an_environment_is_kept_and_measured_without_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def make(place: Path, requirements: list[str]) -> None:
        calls.extend(requirements)
        site = place / "lib" / "python3" / "site-packages"
        for name, count in (("thing", 1000), ("pip", 5000), ("setuptools", 5000), ("thing-1.0.dist-info", 10)):
            (site / name).mkdir(parents=True)
            (site / name / "file").write_bytes(bytes(count))
        (site / "thing" / "file.pyc").write_bytes(bytes(77))

    monkeypatch.setattr("bench.peers.venvs._make", make)
    monkeypatch.setattr("bench.peers.venvs._versions", lambda _: {"thing": "1.0", "other": "2"})
    peer = Peer("Thing!", "made up", ("thing==1.0",), "none.py", "onnx", (Mode("fp32"),))
    venv = venv_of(peer, tmp_path)
    assert venv.installed_bytes == 1010
    assert venv_of(peer, tmp_path) == venv
    assert calls == ["thing==1.0"]
    assert installed_of(peer, venv)["versions"] == {"thing": "1.0"}


def test_an_environment_that_cannot_be_made_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "uv"
    script.write_text("#!/bin/sh\necho 'no such package' >&2\nexit 1\n", encoding="utf-8")
    script.chmod(0o755)
    real: Callable[..., str | None] = shutil.which
    monkeypatch.setattr("shutil.which", lambda name, *more: str(script) if name == "uv" else real(name, *more))
    peer = Peer("Thing", "made up", ("thing==1.0",), "none.py", "onnx", (Mode("fp32"),))
    with pytest.raises(NotInstalledError, match="no such package"):
        venv_of(peer, tmp_path / "venvs")
    assert not (tmp_path / "venvs" / "thing").exists()


def test_venv_is_a_record_of_what_is_there() -> None:
    venv = Venv(Path("python"), {"a": "1"}, 5, {"a": 5})
    told = installed_of(PEERS[0], venv)
    assert told["ours"] and told["requirements"] == [".[cpu]"]
