"""A camera app for tests that end it: `python hard_app.py SOURCE EVENTS`, with a model that tells dark from bright.

It prints `running` with the first result, and at the end its counts as JSON.
"""

from __future__ import annotations

import json
import sys

from clipdeploy.runtime.stream import JsonLines, Stream
from clipdeploy.spec import to_dict
from tests.stream.fakes import FakeAnswerer


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(source: str, events: str) -> None:
    stream = Stream(
        FakeAnswerer(), source, gate=None, smoothing=None, enter_s=0.0, leave_s=0.0, sinks=[JsonLines(events)]
    )
    first = True
    with stream.serve_signals():
        for _ in stream:
            if first:
                say("running")
            first = False
    say(json.dumps(to_dict(stream.stats())))


if __name__ == "__main__":
    main(*sys.argv[1:])
