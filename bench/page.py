"""Write docs/benchmarks.md with its plots, and the tables of README.md, from the results kept in bench/results.

    python -m bench.page

Measures nothing. A test fails when a page, a plot and the results differ. What the pages say is in bench/pages.
"""

from __future__ import annotations

from pathlib import Path

from bench.common import parser_of
from bench.pages.answers import HEAD, answers
from bench.pages.app import app_sections
from bench.pages.ceiling import ceiling_section
from bench.pages.curves import curves_section, plots
from bench.pages.encoder import encoder_sections, gpu_section
from bench.pages.readme import with_tables
from bench.pages.reports import evaluate_section, peers_section, profile_section, start_section
from bench.pages.section import Results, machines_section
from bench.pages.stream import stream_sections
from clipdeploy.bundle import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
IMAGES = ROOT / "docs" / "images"
README = ROOT / "README.md"


def page(results: Path = RESULTS) -> str:
    """The whole of docs/benchmarks.md, from the records in `results`."""
    found = Results(results)
    sections = [
        *peers_section(found),
        *ceiling_section(found),
        *curves_section(found),
        *profile_section(found),
        *start_section(found),
        *evaluate_section(found),
        *encoder_sections(found),
        *app_sections(found),
        *stream_sections(found),
        gpu_section(found),
    ]
    sections.append(machines_section(found))
    contents = "\n".join(f"- [{one.title}](#{one.anchor})" for one in sections)
    return "\n\n".join([HEAD, *answers(found), contents, *(one.text for one in sections)]) + "\n"


def written(results: Path = RESULTS) -> dict[Path, str]:
    """All files that are written from the records, and what they are to hold."""
    found = Results(results)
    return {
        PAGE: page(results),
        README: with_tables(README.read_text(encoding="utf-8"), found),
        **{IMAGES / name: svg for name, svg in plots(found).items()},
    }


def main() -> None:
    """Write them."""
    parser_of("page", __doc__).parse_args()
    for path, text in written().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
        print(f"written {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
