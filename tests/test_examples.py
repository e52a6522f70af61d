"""What stands in examples/ runs, as far as a machine without a camera shows it. The C++ has its tests in tests/cpp."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
LABELS = ("red circle", "blue star", "green ring")
DIST_PACKAGES = "/usr/lib/python3/dist-packages"
"""Where Debian puts Python's GStreamer."""


def run(
    script: str, *words: str | Path, folder: Path | None = None, packages: str | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """An example as a user runs it; `packages` are looked into last."""
    start = [sys.executable, EXAMPLES / script]
    if packages is not None:
        code = "import runpy, sys; sys.path.append(sys.argv.pop(1)); sys.argv.pop(0); "
        start = [sys.executable, "-c", code + 'runpy.run_path(sys.argv[0], run_name="__main__")', packages, *start[1:]]
    return subprocess.run(
        [*map(str, start), *map(str, words)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def answers(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The label of each line `   0  LABEL 0.99  1.0 ms`."""
    assert done.returncode == 0, done.stderr
    return re.findall(r"^ *\d+  (.+) [01]\.\d\d  \d+\.\d ms$", done.stdout, re.MULTILINE)


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of 320 x 240 at 15 a second: a red circle, then a blue star, each alone."""
    cv2 = pytest.importorskip("cv2", reason="needs OpenCV: pip install opencv-python-headless")
    from clipdeploy.demo import render, single_scene

    path = tmp_path_factory.mktemp("video") / "shapes.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 15, (320, 240))
    for pair in (("red", "circle"), ("blue", "star")):
        picture = np.asarray(render(single_scene(0, pair, clear=True), (320, 240)))
        for _ in range(15):
            writer.write(np.ascontiguousarray(picture[..., ::-1]))
    writer.release()
    return path


@pytest.fixture(scope="session")
def framed_bundle(tmp_path_factory: pytest.TempPathFactory, demo_bundle: Path) -> Path:
    """The bundle, taking the video's frames as they come."""
    from clipdeploy.frames import FramesRequest, add_frames

    folder = tmp_path_factory.mktemp("framed") / "bundle"
    shutil.copytree(demo_bundle, folder)
    add_frames(FramesRequest(folder, ("320x240:bgr", "320x240:nv12")))
    return folder


SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_says_how_it_is_run(script: str) -> None:
    text = (EXAMPLES / script).read_text(encoding="utf-8")
    assert f"python {script} BUNDLE" in text.partition("from __future__")[0]
    compile(text, script, "exec")
    assert len(text.splitlines()) <= 150, "an example is read in one go"


@pytest.mark.parametrize("bundle", ["demo_bundle", "framed_bundle"])
def test_opencv(bundle: str, video: Path, request: pytest.FixtureRequest) -> None:
    done = run("opencv_loop.py", request.getfixturevalue(bundle), video, *LABELS)
    assert answers(done) == ["red circle"] * 15 + ["blue star"] * 15


def test_opencv_without_a_camera(demo_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="needs OpenCV: pip install opencv-python-headless")
    done = run("opencv_loop.py", demo_bundle, tmp_path / "nowhere.avi", *LABELS)
    assert done.returncode == 1
    assert "cannot be opened" in done.stderr


@pytest.fixture(scope="session")
def gstreamer() -> str:
    """Where Python's GStreamer is to be found; skips where it is not, or is of another Python."""
    code = (
        "import sys; sys.path.append(sys.argv[1]); import gi; gi.require_version('GstVideo', '1.0'); "
        "from gi.repository import Gst, GstVideo"
    )
    done = subprocess.run([sys.executable, "-c", code, DIST_PACKAGES], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("no GStreamer for this Python: sudo apt-get install python3-gi gir1.2-gst-plugins-base-1.0")
    return DIST_PACKAGES


SHAPE = "filesrc location={video} ! avidemux ! jpegdec ! videoconvert ! video/x-raw,format={format}"


@pytest.mark.parametrize("bundle", ["demo_bundle", "framed_bundle"])
@pytest.mark.parametrize("form", ["NV12", "BGR", "RGB"])
def test_gstreamer(form: str, bundle: str, video: Path, gstreamer: str, request: pytest.FixtureRequest) -> None:
    """Frames of a file come as fast as they can, and appsink keeps the newest: the last one is always answered."""
    pipeline = SHAPE.format(video=video, format=form)
    told = answers(run("gstreamer_appsink.py", request.getfixturevalue(bundle), pipeline, *LABELS, packages=gstreamer))
    assert told[-1] == "blue star"
    assert set(told) <= {"red circle", "blue star"}


def test_gstreamers_test_picture(demo_bundle: Path, gstreamer: str) -> None:
    done = run("gstreamer_appsink.py", demo_bundle, "test", *LABELS, "--frames", "3", packages=gstreamer)
    assert len(answers(done)) == 3


@pytest.mark.parametrize(
    ("pipeline", "complaint"),
    [
        ("nosuchelement ! video/x-raw,format=NV12", 'no element "nosuchelement"'),
        ("videotestsrc ! video/x-raw,format=NV12 ! identity error-after=2", "the pipeline broke: "),
    ],
)
def test_gstreamer_that_breaks(pipeline: str, complaint: str, demo_bundle: Path, gstreamer: str) -> None:
    done = run("gstreamer_appsink.py", demo_bundle, pipeline, *LABELS, packages=gstreamer)
    assert done.returncode == 1
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_padded_rows(gstreamer: str) -> None:
    """Widths whose rows GStreamer pads: every pixel comes where it belongs."""
    code = f"""
import sys, runpy; sys.path.append({gstreamer!r})
example = runpy.run_path({str(EXAMPLES / "gstreamer_appsink.py")!r})
Gst = example["Gst"]; Gst.init(None)
for form, width in [("NV12", 322), ("BGR", 321), ("RGB", 323)]:
    pipeline = Gst.parse_launch("videotestsrc num-buffers=1 pattern=solid-color foreground-color=0xff0000ff "
        f"! video/x-raw,format={{form}},width={{width}},height=98 ! appsink name=frames")
    pipeline.set_state(Gst.State.PLAYING)
    frame, color = example["to_array"](pipeline.get_by_name("frames").emit("pull-sample"))
    pipeline.set_state(Gst.State.NULL)
    if color == "nv12":
        assert frame.shape == (147, 322) and len(set(frame[:98].ravel())) == 1, frame
        assert len(set(frame[98:, 0::2].ravel())) == len(set(frame[98:, 1::2].ravel())) == 1, frame
    else:
        blue = [255, 0, 0] if color == "bgr" else [0, 0, 255]
        assert frame.shape == (98, width, 3) and (frame == blue).all(), frame
print("whole")
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout == "whole\n", done.stderr


def test_events_of_two_cameras(demo_bundle: Path, video: Path, tmp_path: Path) -> None:
    """Under systemd's protocol, which the test plays."""
    pytest.importorskip("av", reason="needs the extra: pip install 'clipdeploy[video]'")
    other = tmp_path / "other.avi"
    shutil.copy(video, other)
    events = tmp_path / "events.jsonl"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, pytest.MonkeyPatch.context() as patch:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        patch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        labels = [word for label in LABELS for word in ("--label", label)]
        done = run("stream_events.py", demo_bundle, video, other, *labels, "--events", events)
        heard = [systemd.recv(1000).decode() for _ in range(2)]
    assert done.returncode == 0, done.stderr
    assert heard == ["READY=1", "STOPPING=1"]
    told = [json.loads(line) for line in events.read_text().splitlines()]
    cameras = {event["camera"] for event in told}
    assert len(cameras) == 2
    for camera in cameras:
        happened = [(event["label"], event["event"]) for event in told if event["camera"] == camera]
        assert sorted(happened) == sorted((x, y) for x in ("red circle", "blue star") for y in ("appeared", "left"))
        assert happened[0] == ("red circle", "appeared")
        assert happened[-1] == ("blue star", "left")
        assert f"{camera}: 30 frames" in done.stderr
    assert sorted(done.stdout.splitlines()) == sorted(
        f"{e['camera']}: {e['label']} {e['event']}" + (f" after {e['seconds']:.1f} s" if "seconds" in e else "")
        for e in told
    )


def test_events_end_by_a_signal(demo_bundle: Path, tmp_path: Path) -> None:
    """With a source that never ends, and nothing left behind in the file."""
    from clipdeploy.demo import render, single_scene

    if shutil.which("gst-launch-1.0") is None:
        pytest.skip("no gst-launch-1.0: sudo apt-get install gstreamer1.0-tools gstreamer1.0-plugins-base")
    render(single_scene(0, ("red", "circle"), clear=True), (320, 240)).save(tmp_path / "red.png")
    source = f"filesrc location={tmp_path}/red.png ! pngdec ! imagefreeze is-live=true ! video/x-raw,framerate=15/1"
    events = tmp_path / "events.jsonl"
    labels = [word for label in LABELS for word in ("--label", label)]
    process = subprocess.Popen(
        [sys.executable, EXAMPLES / "stream_events.py", demo_bundle, source, *labels, "--events", events],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None
        assert "red circle appeared" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        _, complaints = process.communicate(timeout=20)
        assert time.monotonic() - began < 5
    finally:
        process.kill()
    assert process.returncode == 0, complaints
    assert [json.loads(line)["event"] for line in events.read_text().splitlines()] == ["appeared", "left"]


def test_events_say_what_is_wrong(tmp_path: Path) -> None:
    done = run("stream_events.py", tmp_path / "nowhere", "rtsp://127.0.0.1/x", "--label", "a door")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


# --- systemd ---------------------------------------------------------------------------------------------------------

UNIT = EXAMPLES / "systemd/clipdeploy-watch.service"


def directives(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def test_the_unit_is_right_for_systemd(tmp_path: Path) -> None:
    """By systemd itself, with a program that exists in the place of ours."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze: sudo apt-get install systemd")
    text = UNIT.read_text(encoding="utf-8").replace("/opt/clipdeploy/bin/clipdeploy", "/bin/true")
    copy = tmp_path / UNIT.name
    copy.write_text(text, encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, UNIT.name in done.stderr) == (0, False), done.stderr


def test_the_unit_runs_a_verb_that_there_is() -> None:
    said = directives(UNIT.read_text(encoding="utf-8"))
    program, verb, *words = said["ExecStart"].split()
    assert (Path(program).name, verb) == ("clipdeploy", "watch")
    assert options_of("watch") >= {word for word in words if word.startswith("--")}
    assert said["Restart"] == "always"
    assert said["ReadOnlyPaths"] in words[0]
    assert said["ProtectSystem"] == "strict"


def options_of(verb: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-m", "clipdeploy", verb, "--help"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"--[a-z][a-z-]+", done.stdout))


# --- Docker ----------------------------------------------------------------------------------------------------------

DOCKERFILES = sorted(path for path in (EXAMPLES / "docker").glob("Dockerfile.*") if path.suffix != ".dockerignore")
INSTRUCTIONS = {
    *("ARG", "FROM", "RUN", "COPY", "ENV", "USER", "WORKDIR", "VOLUME"),
    *("HEALTHCHECK", "STOPSIGNAL", "ENTRYPOINT", "CMD"),
}


def instructions(path: Path) -> list[tuple[str, str]]:
    """Name and arguments of each, lines joined."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    pairs = [line.partition(" ") for line in joined.splitlines() if line.strip()]
    return [(name, rest.strip()) for name, _, rest in pairs]


def test_there_is_one_for_each_machine() -> None:
    assert [path.name for path in DOCKERFILES] == ["Dockerfile.jetpack", "Dockerfile.x86"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_holds_together(path: Path) -> None:
    """What `docker build` would trip over: names, files that are copied, what is ignored; and who it runs as."""
    found = instructions(path)
    assert {name for name, _ in found} <= INSTRUCTIONS
    ignored = path.with_name(path.name + ".dockerignore").read_text(encoding="utf-8").splitlines()
    sent = {line[1:] for line in ignored if line.startswith("!")}
    copied = [rest for name, rest in found if name == "COPY" and "--from=" not in rest]
    for words in copied:
        for source in [word for word in words.split() if not word.startswith("--")][:-1]:
            assert (ROOT / source).exists(), source
            assert source in sent, f"{source} is left out by .dockerignore"
    user = max(i for i, (name, _) in enumerate(found) if name == "USER")
    assert found[user][1] != "root"
    assert not any(name == "RUN" for name, _ in found[user:]), "nothing is installed as the user who runs it"
    assert [name for name, _ in found].count("HEALTHCHECK") == 1
    for name, rest in found:
        if name in ("ENTRYPOINT", "CMD"):
            assert isinstance(json.loads(rest), list), "the form that lets SIGTERM through"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_installs_extras_that_there_are(path: Path) -> None:
    from tests.test_project import requirements

    asked = requirements()
    (extras,) = {rest.partition("=")[2] for name, rest in instructions(path) if rest.startswith("EXTRAS=")}
    named = {extras, *re.findall(r"EXTRAS=(\S+)", path.read_text(encoding="utf-8"))}
    for extra in ",".join(named).split(","):
        assert extra in asked
        assert "torch" not in asked[extra], "no PyTorch on the device"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_the_lines_that_run_it(path: Path) -> None:
    """Verbs and options that its head shows."""
    head = path.read_text(encoding="utf-8").partition("\nARG")[0]
    lines = re.sub(r"\\\n#\s*", "", head).splitlines()
    shown = [found for line in lines if (found := re.search(r" clipdeploy (watch|build-engine) (.*)", line))]
    assert shown
    for found in shown:
        assert options_of(found[1]) >= set(re.findall(r"--[a-z][a-z-]+", found[2]))


@pytest.mark.parametrize(("runs", "code"), [(True, 0), (False, 1)])
def test_the_health_check(runs: bool, code: int) -> None:
    """Of a process that waits and wakes, and of one that is stopped."""
    process = subprocess.Popen([sys.executable, "-c", "import time\nwhile True: time.sleep(0.1)"])
    try:
        time.sleep(0.3)
        if not runs:
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.1)
        words: Sequence[str] = [sys.executable, str(EXAMPLES / "docker/alive.py"), str(process.pid)]
        assert subprocess.run(words, check=False, timeout=20).returncode == code
    finally:
        process.kill()
        process.wait()
