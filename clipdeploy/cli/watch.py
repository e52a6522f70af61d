"""`clipdeploy watch`: cameras, a few sentences, and an answer for each frame, live."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipdeploy.cli import options
from clipdeploy.cli.console import Console, colours, is_terminal
from clipdeploy.cli.exit_codes import ExitCode
from clipdeploy.cli.verb import Verb
from clipdeploy.spec import Precision, to_dict

if TYPE_CHECKING:
    from clipdeploy.watch import View
    from clipdeploy.watch.board import Board

EXAMPLES = (
    'clipdeploy watch b32 /dev/video0 --labels "a person,a parcel,an empty doorway"',
    "clipdeploy watch b32 door=rtsp://10.0.0.7/1 yard=rtsp://10.0.0.8/1 --labels labels.txt --web",
    "clipdeploy watch b32 film.mp4 --labels labels.txt --video seen.mp4 --events seen.jsonl",
    "clipdeploy watch baked rtsp://10.0.0.7/1 --thresholds thresholds.json --mqtt mqtt://broker/door",
    "clipdeploy watch b32 /dev/video0 --labels labels.txt --web 0.0.0.0:8080",
)

_ENDS = {"interrupted": ExitCode.INTERRUPTED, "terminated": ExitCode.TERMINATED}
_POSITIVE = click.FloatRange(min=0, min_open=True)


class WatchVerb(Verb):
    """A verb whose --json is a line an event."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for param in self.params:
            if isinstance(param, click.Option) and param.name == "as_json":
                param.help = "Print a line of JSON an event, and a last one with the counts."


@click.command(cls=WatchVerb, examples=EXAMPLES)
@options.bundle
@click.argument("sources", nargs=-1, required=True)
@options.labels
@click.option(
    "--others",
    metavar="A,B,...",
    help="Labels for what else is to be seen, such as an empty street, or FILE.txt: compared with, never told.",
)
@click.option(
    "--precision",
    type=click.Choice([*(precision.value for precision in Precision), "auto"]),
    default=Precision.FP32.value,
    show_default=True,
    help="Which graphs of the bundle to run.",
)
@click.option("--backend", default="auto", show_default=True, metavar="NAME", help="What computes; see classify.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Cores for one run.  [default: all]")
@click.option(
    "--thresholds",
    type=options.PATH,
    metavar="FILE",
    help="How well each label must fit, as clipdeploy thresholds measured it; else it is none of these.",
)
@click.option(
    "--negatives",
    type=options.PATH,
    metavar="FOLDER",
    help="Pictures that show none of the labels: thresholds are measured with them first.",
)
@click.option(
    "--smooth",
    type=click.FloatRange(min=0),
    default=0.1,
    show_default=True,
    metavar="SECONDS",
    help="How long answers are averaged over.",
)
@click.option("--no-gate", is_flag=True, help="Ask about every frame, also those that look as the one before.")
@click.option("--max-batch", type=click.IntRange(min=1), default=4, show_default=True, help="Frames in one run.")
@click.option(
    "--deadline-ms",
    type=click.FloatRange(min=0),
    default=20.0,
    show_default=True,
    help="How long a frame waits for those of other cameras.",
)
@click.option("--fps", type=_POSITIVE, metavar="N", help="Frames a second to take of each source.  [default: all]")
@click.option("--loop", is_flag=True, help="Begin files and folders again at their end.")
@click.option(
    "--realtime/--every-frame",
    default=None,
    help="Play files at their own pace, as cameras; or take every frame.  [default: --realtime with --web]",
)
@click.option("--events", metavar="FILE|-", help="Add events to a file, as JSON lines; - is stdout.")
@click.option("--mqtt", metavar="URL", help="Send events to a broker: mqtt://user:password@host:1883/topic.")
@click.option(
    "--video",
    type=options.PATH,
    metavar="OUT.mp4",
    help="Write an annotated video; of several cameras one each, OUT-CAMERA.mp4.",
)
@click.option(
    "--web",
    is_flag=False,
    flag_value="",
    metavar="[HOST:PORT]",
    help="Show a live page, here alone (127.0.0.1, from port 8080 on) unless a host says otherwise. Labels can be "
    "typed there.",
)
@click.option("--token", metavar="TEXT", help="What visitors of the page must bring; made up beyond this machine.")
@click.option("--seconds", type=_POSITIVE, metavar="N", help="End after so long.  [default: when the sources end]")
def watch(
    console: Console,
    bundle: Path,
    sources: tuple[str, ...],
    labels: tuple[str, ...] | None,
    template: tuple[str, ...],
    others: str | None,
    smooth: float,
    no_gate: bool,
    **rest: Any,
) -> ExitCode:
    """Watch cameras and videos, and say what comes and goes.

    SOURCES are videos, folders of pictures, rtsp:// and http:// streams, /dev/video0, or GStreamer
    pipelines; NAME=SOURCE gives one a name. Cameras are opened again when they break off, and the
    newest frame counts. A baked bundle has its labels in it and takes none.

    On a terminal each camera has a block that is drawn over; elsewhere each event is a line. The
    page (--web) shows the picture, and has a box for labels, which take effect at once. It speaks
    plain HTTP. Beyond this machine it asks for a token, which stands in the address that is printed.

    Ends with the sources, after --seconds, or with Ctrl-C. The exit code is 3 when a source failed.
    """
    from clipdeploy.watch import WatchRequest
    from clipdeploy.watch import watch as watch_sources
    from clipdeploy.watch.terminal import json_line, summary

    beside = options.several(others, what="labels")
    request = WatchRequest(
        bundle, sources, labels=labels, others=beside, templates=template, smooth_s=smooth, gate=not no_gate, **rest
    )
    as_json = console.as_json or request.events == "-"
    boards: list[Board] = []

    def view(board: Board) -> View:
        console.progress.close()
        boards.append(board)
        return _view(console, board, as_json=as_json)

    outcome = watch_sources(request, view, progress=console.progress)
    if console.as_json:
        console.out.write(json_line(to_dict(outcome), console.out) + "\n")
        console.out.flush()
    for line in summary(boards[0]):
        console.note(line)
    for video in outcome.videos:
        console.note(f"{video.path}: {video.frames} frames")
    if outcome.ended in _ENDS:
        return _ENDS[outcome.ended]
    return ExitCode.PARTIAL if outcome.failed else ExitCode.OK


def _view(console: Console, board: Board, *, as_json: bool) -> View:
    """What suits the streams of this run."""
    from clipdeploy.watch.terminal import JsonView, LiveView, PlainView

    if as_json:
        return JsonView(console.out, console.err, board, quiet=console.quiet)
    if is_terminal(console.out):
        return LiveView(console.out, board, colours=colours(console.out), quiet=console.quiet)
    return PlainView(console.out, console.err, board, quiet=console.quiet)
