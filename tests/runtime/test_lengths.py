"""Texts are run without what stands behind their end, where their encoder allows it, and otherwise whole."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clipdeploy.errors import InputError
from clipdeploy.runtime.encoders import Encoders
from clipdeploy.runtime.lengths import STEP, cut, free_length, read_up_to
from clipdeploy.spec import LENGTH_AXIS, ModelSpec, TensorSpec, Tower
from tests.bundles import CONTEXT_LENGTH, EMBED_DIM, model_spec

MODEL = model_spec(100)
END = MODEL.tokens.end_id
EMBEDS = TensorSpec("text_embeds", "float32", ("batch", EMBED_DIM))


def of_any_length(pooling: Any = "eot_argmax") -> ModelSpec:
    text = replace(MODEL.text, input=replace(MODEL.text.input, shape=("batch", LENGTH_AXIS)))
    return replace(MODEL, text=text, tokens=replace(MODEL.tokens, pooling=pooling))


def texts(*lengths: int, seed: int = 0) -> np.ndarray:
    """(N, 77) ids whose end stands in place `length - 1`; behind it nothing, or words."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((len(lengths), CONTEXT_LENGTH), np.int64)
    for row, length in zip(ids, lengths, strict=True):
        row[: length - 1] = rng.integers(1, 90, length - 1)
        row[length - 1] = END
    return ids


class Reader:
    """A session that answers with the ids up to the first end, and so with the same however a text is cut behind it."""

    name, output, largest_batch = "fake", EMBEDS, None

    def __init__(self, length: int | str = LENGTH_AXIS) -> None:
        self.input = TensorSpec("input_ids", "int64", ("batch", length))
        self.shapes: list[tuple[int, ...]] = []

    def run(self, ids: np.ndarray) -> np.ndarray:
        self.shapes.append(ids.shape)
        answers = np.zeros((len(ids), EMBED_DIM), np.float32)
        for answer, row in zip(answers, ids, strict=True):
            (ends,) = np.nonzero(row == END)
            read = row[: int(ends[0]) + 1]
            answer[:2] = read.sum(), len(read)
        return answers

    def close(self) -> None:
        pass


def encoders(session: Reader, model: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> Encoders:
    made = Encoders(SimpleNamespace(frames=(), bundle=SimpleNamespace(model=model)), self_test=False)  # type: ignore[arg-type]
    monkeypatch.setattr(made, "session", lambda encoder: session)
    return made


def test_up_to_the_first_end_token() -> None:
    ids = texts(3, 77, 10)
    ids[0, 5] = END  # a second one behind the first
    assert read_up_to(ids, MODEL.tokens).tolist() == [3, 77, 10]
    by_id = replace(MODEL.tokens, pooling="eot_first", end_id=50)
    ids[1, 30] = 50
    ids[1, :30] = 1
    assert read_up_to(ids[1:2], by_id).tolist() == [31]
    assert cut(ids, MODEL.tokens).shape == (3, 77)
    assert cut(ids[[0, 2]], MODEL.tokens).shape == (2, 3 * STEP)


def test_the_highest_id_is_what_is_read_where_the_encoder_reads_it() -> None:
    """An id above the end token's, as preflight warns of: the graph reads there, and so it must not be cut off."""
    ids = texts(4)
    ids[0, 20] = END + 5
    assert read_up_to(ids, MODEL.tokens).tolist() == [21]


@pytest.mark.parametrize("size", [1, 4, 7, 32])
def test_texts_of_like_length_are_run_together_and_answered_in_order(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = np.random.default_rng(1).integers(2, 78, 30).tolist()
    ids, session, whole = texts(*lengths), Reader(), Reader(CONTEXT_LENGTH)
    answers = encoders(session, of_any_length(), monkeypatch).run(Tower.TEXT, ids, size)
    np.testing.assert_array_equal(answers, encoders(whole, of_any_length(), monkeypatch).run(Tower.TEXT, ids, size))
    assert {shape[1] for shape in whole.shapes} == {CONTEXT_LENGTH}
    run = [shape[1] for shape in session.shapes]
    assert run == sorted(run)
    wanted = sorted(lengths)
    for first, shape in zip(range(0, 30, size), session.shapes, strict=True):
        batch = wanted[first : first + size]
        assert shape == (len(batch), min(-(-batch[-1] // STEP) * STEP, CONTEXT_LENGTH))


def test_a_manifest_that_promises_nothing_keeps_texts_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Reader()
    encoders(session, MODEL, monkeypatch).run(Tower.TEXT, texts(3, 4), 8)
    assert session.shapes == [(2, CONTEXT_LENGTH)]
    assert free_length(session, of_any_length(), Tower.IMAGE) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(2, CONTEXT_LENGTH - 1), (2, CONTEXT_LENGTH + 1)])
def test_ids_of_another_length_are_refused_all_the_same(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=rf"input_ids must have shape \(N, {CONTEXT_LENGTH}\), got"):
        encoders(Reader(), of_any_length(), monkeypatch).run(Tower.TEXT, np.full(shape, END), 8)


def test_no_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = encoders(Reader(), of_any_length(), monkeypatch).run(Tower.TEXT, texts(), 8)
    assert answers.shape == (0, EMBED_DIM)
