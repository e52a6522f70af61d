"""The tables of README.md: short, from the same records as docs/benchmarks.md."""

from __future__ import annotations

from bench.pages.peers import better_peers, comparison_table
from bench.pages.runtime import best_of_ours
from bench.pages.section import Results, markdown_table
from bench.peers.standings import GATES

_PEERS = """{model} on {threads} cores of a server processor, one checkpoint, the same {pictures} JPEGs of 1920x1080
and texts, everybody by turns in one run, each in an environment of its own. The gate is how near embeddings are to
open_clip's in float32: `{exact}` by 0.9999 in cosine, `{short}` by 0.99 in the mean and 0.98 at least."""

_ENCODER = """{model} on {threads} cores of a server processor, medians of one interleaved run: the fastest backend and
precision beside PyTorch eager in float32."""

BEGIN, END = "<!-- written by python -m bench.page -->\n", "<!-- end -->"


def readme_tables(results: Results) -> str:
    """What README.md shows of the results."""
    return "\n\n".join([*_peers(results), *_encoder(results)])


def with_tables(readme: str, results: Results) -> str:
    """README.md with its tables as the results say."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{readme_tables(results)}\n\n{END}{rest.split(END, 1)[1]}"


def _peers(results: Results) -> list[str]:
    record = results.get("peers")
    if record is None:
        return []
    about = _PEERS.format(
        model=record["model"],
        threads=record["environment"]["threads"],
        pictures=record["work"]["pictures"],
        exact=GATES[0],
        short=GATES[1],
    )
    better = "\n".join(f"- {line}" for line in better_peers(record))
    told = f"Where a peer is better:\n\n{better}" if better else "No peer is better at any of these."
    return [about, comparison_table(record), told]


def _encoder(results: Results) -> list[str]:
    record = results.get("runtime")
    if record is None:
        return []
    about = _ENCODER.format(model=record["model"], threads=record["environment"]["threads"])
    head = ("the encoder alone", "PyTorch eager", "clipdeploy", "times as fast")
    return [about, markdown_table(head, best_of_ours(record))]
