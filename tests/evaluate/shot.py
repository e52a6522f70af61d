"""docs/images/evaluate.png: the head of a page that `clipdeploy evaluate --html` wrote.

python -m bench.evaluate
cd out/bench/evaluate && clipdeploy evaluate rn held-out --html page.html
python -m tests.evaluate.shot out/bench/evaluate/page.html [-o docs/images/evaluate.png] [--height 1290]
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image

from tests.watch.browser import browser, missing


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/images/evaluate.png"))
    parser.add_argument("--height", type=int, default=1290)
    asked = parser.parse_args()
    reason = missing()
    if reason is not None:
        parser.exit(1, f"{reason}\n")
    with browser(1040, asked.height) as driver:
        driver.get(asked.page.resolve().as_uri())
        picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(256, kmeans=3, dither=Image.Dither.NONE).save(asked.output, optimize=True)
    print(f"{asked.output}: {picture.width}x{picture.height}, {asked.output.stat().st_size / 1000:.0f} kB")  # noqa: T201


if __name__ == "__main__":
    main()
