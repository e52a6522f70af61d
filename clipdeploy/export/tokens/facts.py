"""What a tokenizer does, as a record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from clipdeploy.spec import TextCleaning, TextPooling, TokenSpec


@dataclass(frozen=True)
class TokenFacts:
    """What a tokenizer does.

    Attributes:
        context_length: ids per text.
        vocab_size: one more than the highest id it gives.
        start_id: id put in front, None when there is none.
        end_id: id put behind.
        pad_id: id that fills the rest.
        cleaning: the rules before the split.
        to_json: makes the content of `tokenizer.json`.
        erased_id: id that becomes 0 wherever it stands, None where none does.
        last_id: id in the last place, behind the padding, None where there is none.
    """

    context_length: int
    vocab_size: int
    start_id: int | None
    end_id: int
    pad_id: int
    cleaning: TextCleaning
    to_json: Callable[[], str]
    erased_id: int | None = None
    last_id: int | None = None

    def spec(self, *, vocab_size: int, pooling: TextPooling) -> TokenSpec:
        """The record for the manifest.

        Args:
            vocab_size: rows of the text tower's embedding.
            pooling: which position the text tower reads.
        """
        return TokenSpec(
            context_length=self.context_length,
            vocab_size=vocab_size,
            start_id=self.start_id,
            end_id=self.end_id,
            pad_id=self.pad_id,
            cleaning=self.cleaning,
            pooling=pooling,
            erased_id=self.erased_id,
            last_id=self.last_id,
        )
