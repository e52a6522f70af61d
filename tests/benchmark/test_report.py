"""The benchmark as text: what wins, how sure that is, and tables that fit a terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clipdeploy.benchmark.judge import Winner, moved, percent, winners
from clipdeploy.benchmark.records import Absent, Board, BoardSample
from clipdeploy.benchmark.report import WIDTH, cautions, tables, text_table
from clipdeploy.text import width
from tests.benchmark.figures import BATCHES, CANDIDATES, candidate, result

LONG = (
    candidate("onnxruntime:tensorrt-rtx", "fp16", 1.2, gpu=True),
    candidate("onnxruntime:tensorrt", "int8", 0.9, gpu=True),
)
BOARD = Board(
    "MAXN_SUPER",
    False,
    (
        BoardSample(
            "openvino int8", 1, {"VDD_IN": 17946, "VDD_SOC": 3923}, 713, 3199, 84, 6982, {"gpu": 63.5, "tj": 65.5}
        ),
        BoardSample("openvino int8", 8, {}),
    ),
)


def cells(text: str, start: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith(start)).removeprefix(start).split()


def test_the_figures_stand_in_their_tables() -> None:
    text = text_table(result())
    image, _, rest = text.partition("Text encoder")
    assert cells(image, "openvino int8") == ["1", "8.60", "9.03", "10.3", "8.34", "116", "2", "%"]
    stages = rest.partition("One picture")[2]
    assert cells(stages, "onnxruntime fp32") == ["8.00", "13.5", "0.20", "30.4", "0.05", "52.2", "24.8"]
    start = stages.partition("Cold start")[2]
    assert cells(start, "openvino fp32") == ["0.02", "0.16", "0.01", "0.31", "0.20", "0.70", "1.90", "25.7"]
    memory = start.partition("Memory")[2]
    assert cells(memory, "openvino int8") == ["80.0", "MB", "210.0", "MB", "420.0", "MB", "338.0", "MB"]
    assert "GPU" not in memory  # of which nothing is known
    assert "onnxruntime bf16, fp8: onnxruntime on a CPU does not compute in bf16" in text


def test_one_text_graph_is_told_of_once() -> None:
    texts = text_table(result()).partition("Text encoder")[2].partition("One picture")[0]
    assert "As openvino fp32: onnxruntime fp32." in texts
    assert not any(line.startswith("onnxruntime fp32") for line in texts.splitlines())


@pytest.mark.parametrize("candidates", [CANDIDATES, LONG, (*CANDIDATES, *LONG)])
def test_all_of_it_fits_a_terminal(candidates: tuple) -> None:  # type: ignore[type-arg]
    why = "TensorRT 10.3 cannot take this graph since " + "it has a node of a kind that it does not know, " * 5
    text = text_table(result(candidates, absent=[Absent("tensorrt", "fp8", why)], board=BOARD))
    assert max(map(width, text.splitlines())) <= WIDTH
    assert "copy in" in text or candidates is CANDIDATES
    for one in candidates:
        assert text.count(one.name) >= 4


def test_columns_stay_below_their_heads_where_names_have_lines_of_their_own() -> None:
    text = text_table(result(LONG)).partition("One picture from file to label")[2]
    head = next(line for line in text.splitlines() if "decode" in line)
    after = text.splitlines().index("onnxruntime:tensorrt-rtx fp16") + 1
    assert len(text.splitlines()[after]) == len(head)


def test_the_fastest_of_each_work_is_named() -> None:
    found = {winner.work: winner for winner in winners(result())}
    assert list(found) == ["one picture a run", "32 pictures a run", "from file to label", "one text a run"]
    single = found["one picture a run"]
    assert (single.name, single.second) == ("openvino int8", "onnxruntime int8")
    assert str(single) == "one picture a run: openvino int8, 8.60 ms, 1.7 times as fast as onnxruntime int8"


def test_a_lead_within_what_rounds_moved_is_no_lead() -> None:
    two = (candidate("openvino", "int8", 10.0, spread=0.08), candidate("openvino", "bf16", 10.4, spread=0.03))
    first = winners(result(two))[0]
    assert first.level
    assert "openvino int8 (10.0 ms) and openvino bf16 are level: 4 % apart, and rounds moved by 8 %" in str(first)
    calm = (candidate("openvino", "int8", 10.0, spread=0.01), candidate("openvino", "bf16", 10.4, spread=0.01))
    assert "openvino int8, 10.0 ms, 4 % ahead of openvino bf16" in str(winners(result(calm))[0])


def test_shares_are_told_in_whole_percent() -> None:
    assert [percent(share) for share in (0.0, 0.004, 0.006, 0.151, 8.14)] == [
        "0 %",
        "under 1 %",
        "1 %",
        "15 %",
        "814 %",
    ]


def test_a_single_candidate_wins_over_nobody() -> None:
    assert str(winners(result(CANDIDATES[:1]))[0]) == "one picture a run: openvino int8, 8.60 ms"
    assert Winner("w", "a", "1 ms").level is False


def test_a_machine_that_stands_still_needs_no_warning() -> None:
    assert not any(text.startswith("WARNING") for text in cautions(result()))
    assert any("typically moved by 2 %" in text for text in cautions(result()))


def test_a_restless_machine_is_warned_of_plainly() -> None:
    restless = tuple(candidate("openvino", precision, 10.0, spread=0.3) for precision in ("int8", "bf16"))
    movement = moved(result(restless))
    assert movement is not None
    assert movement.typical == pytest.approx(0.3)
    assert movement.restless
    assert "Differences below 30 % mean nothing here" in " ".join(text_table(result(restless)).split())


def test_one_round_tells_nothing_of_the_spread() -> None:
    def once(one):  # type: ignore[no-untyped-def]
        return replace(one, latency=replace(one.latency, rounds_ms=one.latency.rounds_ms[:1]))

    one = CANDIDATES[0]
    single = replace(
        one,
        images=tuple(map(once, one.images)),
        texts=(),
        file_to_label=replace(one.file_to_label, rounds_ms=(30.0,)),  # type: ignore[type-var]
    )
    assert "One round alone does not tell how much the machine moves" in text_table(result([single]))
    assert "rounds moved" not in text_table(result([single]))


def test_a_bundle_of_texts_alone() -> None:
    text = text_table(result([candidate("openvino", "fp32", 9.0, images=False)]))
    assert "Image encoder" not in text
    assert "from file to label" not in text
    assert cells(text.partition("Text encoder")[2], "openvino fp32")[:2] == ["1", "3.00"]
    assert "one text a run: openvino fp32, 3.00 ms" in text


def test_a_board_is_told_of() -> None:
    text = text_table(result(board=BOARD))
    assert "power mode  MAXN_SUPER, clocks not held" in text
    assert "sudo jetson_clocks" in text
    row = cells(text.partition("tegrastats")[2], "openvino int8")
    assert row == ["1", "713", "84", "3,199", "7.0", "GB", "66", "°C", "17.9", "154"]  # 17946 mW, 116 a second
    assert cells(text.partition("Power by rail")[2], "openvino int8") == ["1", "17.9", "3.9"]


def test_a_gpu_that_is_held_back_is_warned_of() -> None:
    hot = result()
    hot.environment["gpus"] = [
        {"name": "A GPU", "held_back_by": ["idle", "power cap"]},
        {"name": "B", "held_back_by": None},
    ]
    assert "WARNING: The GPU's clocks were held back: power cap." in cautions(hot)
    assert "A Processor, 4 cores, A GPU, B" in text_table(hot)


def test_rows_have_a_cell_for_each_column() -> None:
    for made in tables(result((*CANDIDATES, *LONG), board=BOARD)):
        for _, rows in made.groups:
            assert {len(row) for row in rows} == {len(made.head) - 1}, made.title
    assert BATCHES == (1, 8, 32)
