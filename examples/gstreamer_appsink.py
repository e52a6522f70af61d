"""GStreamer's appsink: frames from the camera's own pipeline into the bundle, on a Jetson and on x86.

    sudo apt-get install python3-gi gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-good
    python3 -m venv --system-site-packages venv && venv/bin/pip install 'clipdeploy[cpu]'
    venv/bin/python gstreamer_appsink.py BUNDLE csi LABEL LABEL...

The second argument names one of the pipelines below (`csi`, `usb`, `rtsp`, `x86-usb`, `x86-rtsp`, `test`), or is one of
your own that ends in video/x-raw of format NV12, BGR or RGB; `--device` is its sensor number, device or address.

NV12 is what decoders and cameras give. A bundle with a frame graph for it
(`clipdeploy frames BUNDLE --frame 1920x1080:nv12`) takes it as it is, so that nobody converts colours on the processor.
"""

from __future__ import annotations

import argparse
import ctypes
import signal
import sys
import time
from typing import Any

# GStreamer brings libunwind, whose functions of the same names would take the place of the compiler's own, and an
# exception inside an inference engine would then end the program: whichever comes first, is taken.
ctypes.CDLL("libgcc_s.so.1", mode=ctypes.RTLD_GLOBAL)

import gi  # noqa: E402
import numpy as np  # noqa: E402

gi.require_version("Gst", "1.0")
gi.require_version("GstVideo", "1.0")
from gi.repository import GLib, Gst, GstVideo  # noqa: E402

import clipdeploy  # noqa: E402
from clipdeploy.runtime.nv12 import nv12_to_rgb  # noqa: E402

SIZE = "width=1920,height=1080,framerate=30/1"
PIPELINES = {
    # Jetson. NVMM is memory of the GPU and the codecs; nvvidconv copies from it, and changes size and format.
    "csi": "nvarguscamerasrc sensor-id={device} ! video/x-raw(memory:NVMM)," + SIZE + " ! nvvidconv"
    " ! video/x-raw,format=NV12",
    "usb": "v4l2src device={device} io-mode=2 ! image/jpeg," + SIZE + " ! nvv4l2decoder mjpeg=1 ! nvvidconv"
    " ! video/x-raw,format=NV12",
    "rtsp": "rtspsrc location={device} protocols=tcp latency=200 ! rtph264depay ! h264parse ! nvv4l2decoder ! nvvidconv"
    " ! video/x-raw,format=NV12",
    # Any processor.
    "x86-usb": "v4l2src device={device} ! image/jpeg," + SIZE + " ! jpegdec ! videoconvert ! video/x-raw,format=NV12",
    "x86-rtsp": "rtspsrc location={device} protocols=tcp latency=200 ! rtph264depay ! h264parse ! avdec_h264"
    " ! videoconvert ! video/x-raw,format=NV12",
    "test": "videotestsrc is-live=true ! video/x-raw,format=NV12,width=640,height=480,framerate=30/1",
}
DEVICES = {"csi": "0", "usb": "/dev/video0", "x86-usb": "/dev/video0"}
# one frame, the newest: what the model has no time for is dropped here, and never becomes a queue
APPSINK = " ! appsink name=frames max-buffers=1 drop=true sync=false"


def to_array(sample: Any) -> tuple[np.ndarray, str]:
    """A sample -> its own copy of the frame, uint8, and its colour: (H * 3 / 2, W) `nv12`, or (H, W, 3) `bgr` or `rgb`.

    Rows may be padded and planes lie apart: the buffer's own video meta says how, else the caps do.
    """
    info = GstVideo.VideoInfo.new_from_caps(sample.get_caps())
    buffer = sample.get_buffer()
    meta = GstVideo.buffer_get_video_meta(buffer)
    strides, offsets = (meta.stride, meta.offset) if meta else (info.stride, info.offset)
    width, height, color = info.width, info.height, info.finfo.name.lower()
    shapes = {"nv12": [(height, width), (height // 2, width)]}.get(color, [(height, width * 3)])
    good, mapped = buffer.map(Gst.MapFlags.READ)
    if not good:
        raise RuntimeError("the frame's memory cannot be read: end the pipeline in plain video/x-raw")
    try:
        data = np.frombuffer(mapped.data, np.uint8)
        planes = [
            np.lib.stride_tricks.as_strided(data[offset:], shape, (stride, 1))
            for shape, stride, offset in zip(shapes, strides, offsets, strict=False)
        ]
        frame = np.concatenate(planes)
    finally:
        buffer.unmap(mapped)
    return frame if color == "nv12" else frame.reshape(height, width, 3), color


def classify(clip: clipdeploy.Clip, classifier: clipdeploy.Classifier, frame: np.ndarray, color: str) -> Any:
    """The frame's answer; inside the graph where the bundle has one for this size and colour."""
    if any(spec.shape == frame.shape and spec.color == color for spec in clip.frames):
        return classifier.classify_frames(frame, color=color)[0]
    if color == "nv12":
        return classifier(nv12_to_rgb(frame))
    return classifier(frame, color=color)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("pipeline")
    parser.add_argument("labels", nargs="+")
    parser.add_argument("--device")
    parser.add_argument("--frames", type=int, default=0)
    given = parser.parse_args()

    Gst.init(None)
    line = PIPELINES.get(given.pipeline, given.pipeline)
    line = line.replace("{device}", given.device or DEVICES.get(given.pipeline, ""))
    try:
        pipeline = Gst.parse_launch(line + APPSINK)
    except GLib.Error as error:
        sys.exit(f"{line}: {error.message}")
    sink, bus = pipeline.get_by_name("frames"), pipeline.get_bus()
    stopping: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: stopping.append(number))

    count = 0
    with clipdeploy.load(given.bundle, usual_batch=1) as clip:
        classifier = clip.classifier(given.labels)
        pipeline.set_state(Gst.State.PLAYING)
        try:
            while not stopping and (not given.frames or count < given.frames):
                sample = sink.emit("try-pull-sample", Gst.SECOND)
                broken = bus.pop_filtered(Gst.MessageType.ERROR)
                if broken:
                    sys.exit(f"the pipeline broke: {broken.parse_error().gerror.message}")
                if sample is None and sink.get_property("eos"):
                    break
                if sample is None:
                    continue  # nothing came for a second
                frame, color = to_array(sample)
                began = time.perf_counter()
                answer = classify(clip, classifier, frame, color)
                took_ms = 1000 * (time.perf_counter() - began)
                print(f"{count:6d}  {answer.label} {answer.probability:.2f}  {took_ms:.1f} ms", flush=True)
                count += 1
        finally:
            pipeline.set_state(Gst.State.NULL)


if __name__ == "__main__":
    main()
