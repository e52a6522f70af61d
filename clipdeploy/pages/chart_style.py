"""The look of charts, on a page and as a file: defined here and nowhere else.

The colours of series keep apart for people who see no red, no green or no blue, on paper and on dark; marks differ too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_PAPER = {  # as `pages.style.CSS` has it
    "light": {
        "card": "#fffefb",
        "ink": "#1d2125",
        "soft": "#6a7178",
        "line": "#e2dfd6",
        "good": "#1f7a4d",
        "bad": "#b3261e",
    },
    "dark": {
        "card": "#1c2024",
        "ink": "#e8e6e1",
        "soft": "#9aa2aa",
        "line": "#2d3238",
        "good": "#5fcb91",
        "bad": "#ff8a80",
    },
}
SERIES: dict[str, Sequence[str]] = {
    "light": ("#4452a7", "#c05700", "#388f71", "#8f126b", "#c58800", "#7a6897", "#4996f3", "#644a00"),
    "dark": ("#56cbef", "#e9841b", "#399e94", "#b079ee", "#ffe239", "#b7bc8d", "#a1f5dc", "#c44e4b"),
}
"""More series than these go round again."""
COLOURS = len(SERIES["light"])

_PALE = (4, 6)  # on light paper, numbers on these are dark
_OWN = {
    scheme: {**{f"s{i}": colour for i, colour in enumerate(colours)}, "pale": on}
    for (scheme, colours), on in zip(SERIES.items(), ("#1d2125", "#1c2024"), strict=True)
}

_RULES = """
.chart { display:block; width:100%; height:auto; }
.chart text { fill:var(--ink); font:12px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif; }
.chart .title { font-size:13.5px; font-weight:650; }
.chart .soft, .chart .unit { fill:var(--soft); } .chart .small { font-size:11px; }
.chart .number { font-variant-numeric:tabular-nums; }
.chart .on { fill:var(--card); font-size:11px; }
.chart .halo { paint-order:stroke; stroke:var(--card); stroke-width:4px; stroke-linejoin:round; }
.chart .grid { stroke:var(--line); stroke-width:1; } .chart .base { stroke:var(--soft); stroke-width:1; }
.chart .leader { fill:none; stroke:var(--soft); stroke-width:.75; opacity:.55; }
.chart .level { fill:none; stroke:var(--ink); stroke-width:1.5; stroke-dasharray:2 3; }
.chart .ceiling { stroke:var(--ink); stroke-width:2; }
.chart .path { fill:none; stroke-width:2; stroke-linejoin:round; stroke-linecap:round; }
.chart .fit { fill:none; stroke-width:1.25; stroke-dasharray:5 4; opacity:.8; }
.chart .dashed { stroke-dasharray:6 4; } .chart .span { stroke-width:1.25; opacity:.6; }
.chart .point { stroke:var(--card); stroke-width:1.5; } .chart .hit { fill:transparent; }
.chart g:hover > .point { stroke:var(--ink); } .chart .rest { opacity:.45; }
"""


def _coloured() -> str:
    names = [*(f"s{i}" for i in range(COLOURS)), "good", "bad"]
    rules = [f".chart .{kind}.{name} {{ {kind}:var(--{name}); }}" for name in names for kind in ("fill", "stroke")]
    rules += [f".chart .on.s{i} {{ fill:var(--pale); }}" for i in _PALE]
    return "\n".join(rules) + "\n"


def _variables(colours: Mapping[str, str]) -> str:
    return ":root { " + " ".join(f"--{name}:{value};" for name, value in colours.items()) + " }"


def _resolved(css: str, colours: Mapping[str, str]) -> str:
    for name, value in colours.items():
        css = css.replace(f"var(--{name})", value)
    return css


_ALL = _RULES + _coloured()
_IN_A_FILE = _ALL + ".chart .paper { fill:var(--card); }\n"

CHART_CSS = f"{_variables(_OWN['light'])}\n@media (prefers-color-scheme: dark) {{ {_variables(_OWN['dark'])} }}\n{_ALL}"
"""For a page, after `pages.style.CSS`, whose colours of paper and ink it takes."""

# Colours in place of variables: not all that shows an SVG file knows variables.
FILE_CSS = (
    _resolved(_IN_A_FILE, {**_PAPER["light"], **_OWN["light"], "card": "#ffffff"})
    + "@media (prefers-color-scheme: dark) {"
    + _resolved(_IN_A_FILE, {**_PAPER["dark"], **_OWN["dark"]})
    + "}\n"
)
"""For a file, which brings its own paper."""
