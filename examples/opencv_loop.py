"""OpenCV's own loop: read a frame, ask the bundle, draw the answer.

    pip install 'clipdeploy[cpu]' opencv-python
    python opencv_loop.py BUNDLE SOURCE LABEL LABEL...

SOURCE is a number (0 is /dev/video0), a video file, or an rtsp:// address. `--frames N` stops after N frames,
`--window` shows them (not with opencv-python-headless).

A bundle with a frame graph of this size (`clipdeploy frames BUNDLE --frame 1920x1080:bgr`) takes the frame as it is:
resizing and normalising are then a part of the model. Without one, clipdeploy does it in Python, to the same result.

For several cameras, reconnection, smoothing and events, see stream_events.py.
"""

from __future__ import annotations

import argparse
import sys
import time

import cv2

import clipdeploy


def open_camera(source: str) -> cv2.VideoCapture:
    """A capture that holds one frame at most, where its backend can: an answer is to be of now."""
    capture = cv2.VideoCapture(int(source) if source.isdecimal() else source)
    if not capture.isOpened():
        sys.exit(f"{source} cannot be opened: is it plugged in, and is nothing else using it?")
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return capture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("source")
    parser.add_argument("labels", nargs="+")
    parser.add_argument("--frames", type=int, default=0)
    parser.add_argument("--window", action="store_true")
    given = parser.parse_args()

    capture = open_camera(given.source)
    with clipdeploy.load(given.bundle, usual_batch=1) as clip:
        classifier = clip.classifier(given.labels)
        in_graph = {frame.shape for frame in clip.frames if frame.color == "bgr"}
        count = 0
        while not given.frames or count < given.frames:
            good, frame = capture.read()  # (H, W, 3) uint8, BGR
            if not good:
                break
            began = time.perf_counter()
            if frame.shape in in_graph:
                (answer,) = classifier.classify_frames(frame, color="bgr")
            else:
                answer = classifier(frame, color="bgr")
            took_ms = 1000 * (time.perf_counter() - began)
            text = f"{answer.label} {answer.probability:.2f}"
            print(f"{count:6d}  {text}  {took_ms:.1f} ms", flush=True)
            count += 1
            if given.window:
                cv2.putText(frame, text, (20, 50), cv2.FONT_HERSHEY_SIMPLEX, 1.2, (0, 255, 0), 2)
                cv2.imshow("clipdeploy", frame)
                if cv2.waitKey(1) == ord("q"):
                    break
    capture.release()
    if count == 0:
        sys.exit(f"{given.source} gave no frame")


if __name__ == "__main__":
    main()
