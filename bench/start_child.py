"""What `bench.start` times: a process of its own that imports clipdeploy, loads a bundle and answers; a file by itself.

    python start_child.py STARTED BUNDLE PICTURE BACKEND PRECISION THREADS

STARTED is the `time.monotonic()` at which whoever started it did so. Prints what each step took, in ms, as JSON.
"""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    """Take the steps."""
    started, bundle, picture, backend, precision, threads = sys.argv[1:]
    steps, last = {}, float(started)

    def done(step: str) -> None:
        nonlocal last
        now = time.monotonic()
        steps[step], last = (now - last) * 1e3, now

    done("interpreter")
    import clipdeploy

    done("import clipdeploy")
    load = clipdeploy.load
    done("import the runtime")
    clip = load(bundle, backend=backend, precision=precision, threads=int(threads))
    done("load")
    clip.encode_image(picture)
    done("first picture")
    steps["first answer"] = (last - float(started)) * 1e3
    clip.encode_image(picture)
    done("second picture")
    clip.encode_text(["a photo of a dog"])
    done("first text")
    clip.classify(picture, ["a dog", "a cat"])
    done("first classify")
    print(json.dumps(steps))


if __name__ == "__main__":
    main()
