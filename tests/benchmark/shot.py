"""docs/images/bench.png: the head of the page that `clipdeploy bench --html` wrote.

clipdeploy bench b32 --html bench.html
python -m tests.benchmark.shot bench.html [-o docs/images/bench.png] [--phone] [--height 1040]
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
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/images/bench.png"))
    parser.add_argument("--height", type=int, default=1040)
    parser.add_argument("--phone", action="store_true")
    asked = parser.parse_args()
    reason = missing()
    if reason is not None:
        parser.exit(1, f"{reason}\n")
    with browser(390 if asked.phone else 1060, asked.height, phone=asked.phone) as driver:
        driver.get(asked.page.absolute().as_uri())
        picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(256, kmeans=3, dither=Image.Dither.NONE).save(asked.output, optimize=True)
    print(f"{asked.output}: {picture.width}x{picture.height}, {asked.output.stat().st_size / 1000:.0f} kB")  # noqa: T201


if __name__ == "__main__":
    main()
