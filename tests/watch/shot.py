"""docs/images/watch.png: the page of `clipdeploy watch --web` while the demo world's video plays.

    python -m tests.watch.shot [--bundle FOLDER] [-o docs/images/watch.png] [--phone] [--label "blue star"]

Without --bundle it exports the shipped CLIP first. It takes the picture once the label is in view and likely.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path

from PIL import Image

from clipdeploy.demo.video import video
from tests.watch.browser import browser, missing
from tests.watch.served import served

LABELS = ("red heart", "blue star", "yellow flower", "green circle", "orange ring", "white arrow")
PAIRS = (("blue", "star"), ("yellow", "flower"), ("green", "circle"), ("red", "heart"))
_ENOUGH = 0.9


def write_film(path: Path, *, seed: int, seconds: float, size: tuple[int, int] = (640, 480), fps: int = 15) -> Path:
    """A film of the demo world, H.264."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for picture, _ in video(seconds=seconds, fps=fps, size=size, seed=seed, pairs=PAIRS):
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    return path


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/images/watch.png"))
    parser.add_argument("--label", default="yellow flower", help="what must be in view")
    parser.add_argument("--seed", type=int, default=34)
    parser.add_argument("--seconds", type=float, default=14.0)
    parser.add_argument("--phone", action="store_true")
    asked = parser.parse_args()
    reason = missing()
    if reason is not None:
        parser.exit(1, f"{reason}\n")
    with tempfile.TemporaryDirectory() as folder:
        bundle = asked.bundle or _exported(Path(folder))
        film = write_film(Path(folder) / "street.mp4", seed=asked.seed, seconds=asked.seconds)
        with served(bundle, (str(film),), LABELS) as page:
            width, height = (390, 844) if asked.phone else (1200, 930)
            with browser(width, height, phone=asked.phone) as driver:
                _take(driver, page.url, asked.label, asked.output)


def _take(driver, url: str, label: str, output: Path) -> None:  # type: ignore[no-untyped-def]
    from selenium.webdriver.support.ui import WebDriverWait

    driver.get(url)
    # Once round, so that there are events to show; then the label, where it stands clear.
    ready = f"""
      const row = [...document.querySelectorAll('#bars li')].find(li => li.children[0].textContent === '{label}');
      return document.querySelectorAll('#events .left').length > 6 && row && row.className === 'here'
        && document.querySelectorAll('#said b').length === 1
        && Number(row.children[2].getAttribute('aria-valuenow')) >= {100 * _ENOUGH}
        && /[1-9] s/.test(row.children[1].textContent);
    """
    WebDriverWait(driver, 60, poll_frequency=0.05).until(lambda d: d.execute_script(ready))
    picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    output.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(256, kmeans=3, dither=Image.Dither.NONE).save(output, optimize=True)
    print(f"{output}: {picture.width}x{picture.height}, {output.stat().st_size / 1000:.0f} kB")  # noqa: T201


def _exported(folder: Path) -> Path:
    from clipdeploy.demo import model_path
    from clipdeploy.pipeline import ExportRequest, export_bundle
    from clipdeploy.request import CheckpointRequest

    export_bundle(ExportRequest(CheckpointRequest(f"local-dir:{model_path()}"), output=folder / "bundle"))
    return folder / "bundle"


if __name__ == "__main__":
    main()
