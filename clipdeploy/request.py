"""What a user says of a checkpoint: the name, and what the checkpoint itself does not state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Library = Literal["open_clip", "transformers"]


@dataclass(frozen=True)
class CheckpointRequest:
    """Which checkpoint, and what to take for that which it does not state.

    Attributes:
        model: an open_clip architecture (`ViT-B-32`), `hf-hub:ORG/REPO`, `local-dir:PATH`, a folder, or one of
            OpenAI's own files, which states its architecture.
        pretrained: for an architecture, a tag of published weights or a weights file.
        random_weights: take no weights, but seeded random values.
        seed: of the random weights.
        preprocessing: family of the preprocessing (`openai`, `siglip`, ...), for weights that state none.
        image_size: (height, width) in px to export at, where it is not the checkpoint's own.
        library: whose format it is, where a folder or repository holds several.
        entry: which state dict of a file that holds several, such as `state_dict_ema`.
        text_model: folder or repository of the text encoder, where it stands apart from the image encoder.
        tokenizer: folder or `tokenizer.json`, where the checkpoint brings none.
        logit_scale: already exponentiated, where the checkpoint states none.
    """

    model: str
    pretrained: str | None = None
    random_weights: bool = False
    seed: int = 0
    preprocessing: str | None = None
    image_size: tuple[int, int] | None = None
    library: Library | None = None
    entry: str | None = None
    text_model: str | None = None
    tokenizer: str | None = None
    logit_scale: float | None = None
