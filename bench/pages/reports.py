"""Sections whose text the benchmark itself writes: the peers, the profile, the start, and how right the answers are."""

from __future__ import annotations

from bench.pages.section import Results, Section, block

_PROFILE = """`python -m bench.profile`: where the time from file to label goes, in the runtime as it was and as it
is, by turns in one run."""

_START = """`python -m bench.start`: from the start of a process to its first answers, each time in a fresh process.
`new` is a machine that has seen nothing, where every file of the bundle is hashed and the self-test runs; `known` is
as ever after."""

_EVALUATE = """`python -m bench.evaluate`: the two demo CLIPs on pictures of pairs that training never saw, by each
backend and precision, beside PyTorch on the checkpoint ([demo-model.md](demo-model.md) tells what they know). The
very work of `clipdeploy evaluate`."""


def peers_section(results: Results) -> list[Section]:
    """clipdeploy beside its peers, when they were measured."""
    record = results.get("peers")
    if record is None:
        return []
    from bench.peers.page import peers_parts

    first, *others = peers_parts(record)
    return [Section("Beside the peers", (first.removeprefix("## Beside the peers").lstrip(), *others))]


def profile_section(results: Results) -> list[Section]:
    """Where time goes, before and after, when it was measured."""
    record = results.get("profile")
    if record is None:
        return []
    from bench.profile import report

    return [Section("Where the time goes", (_PROFILE, results.measured(record), _as_it_is(report(record))))]


def start_section(results: Results) -> list[Section]:
    """From the start of a process to its first answers, when it was measured."""
    record = results.get("start")
    if record is None:
        return []
    from bench.start import report

    return [Section("From the start to the first answer", (_START, results.measured(record), block(report(record))))]


def evaluate_section(results: Results) -> list[Section]:
    """How right the answers are, when it was measured."""
    record = results.get("evaluate")
    if record is None:
        return []
    from bench.evaluate import report

    return [Section("How right the answers are", (_EVALUATE, results.measured(record), block(report(record))))]


def _as_it_is(text: str) -> str:
    """Markdown as Markdown, and plain text as a block."""
    return text.strip() if any(line.startswith(("|", "```", "#")) for line in text.splitlines()) else block(text)
