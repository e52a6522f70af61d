"""Labels and prompt templates: what a zero-shot classifier is asked."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from clipdeploy.errors import TextError

DEFAULT_TEMPLATE = "a photo of a {}."

# The 80 ImageNet templates of the CLIP paper, in the order of notebooks/Prompt_Engineering_for_ImageNet.ipynb
# of github.com/openai/CLIP.
_OPENAI = (
    "a bad photo of a {}.",
    "a photo of many {}.",
    "a sculpture of a {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of the {}.",
    "a rendering of a {}.",
    "graffiti of a {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a tattoo of a {}.",
    "the embroidered {}.",
    "a photo of a hard to see {}.",
    "a bright photo of a {}.",
    "a photo of a clean {}.",
    "a photo of a dirty {}.",
    "a dark photo of the {}.",
    "a drawing of a {}.",
    "a photo of my {}.",
    "the plastic {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a painting of the {}.",
    "a painting of a {}.",
    "a pixelated photo of the {}.",
    "a sculpture of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a plastic {}.",
    "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a rendering of the {}.",
    "a {} in a video game.",
    "a photo of one {}.",
    "a doodle of a {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "the origami {}.",
    "the {} in a video game.",
    "a sketch of a {}.",
    "a doodle of the {}.",
    "a origami {}.",
    "a low resolution photo of a {}.",
    "the toy {}.",
    "a rendition of the {}.",
    "a photo of the clean {}.",
    "a photo of a large {}.",
    "a rendition of a {}.",
    "a photo of a nice {}.",
    "a photo of a weird {}.",
    "a blurry photo of a {}.",
    "a cartoon {}.",
    "art of a {}.",
    "a sketch of the {}.",
    "a embroidered {}.",
    "a pixelated photo of a {}.",
    "itap of the {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a plushie {}.",
    "a photo of the nice {}.",
    "a photo of the small {}.",
    "a photo of the weird {}.",
    "the cartoon {}.",
    "art of the {}.",
    "a drawing of the {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "the plushie {}.",
    "a dark photo of a {}.",
    "itap of a {}.",
    "graffiti of the {}.",
    "a toy {}.",
    "itap of my {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "a tattoo of the {}.",
)

TEMPLATES = MappingProxyType({"default": (DEFAULT_TEMPLATE,), "openai": _OPENAI})
"""Templates that go by a name; `{}` stands for the label."""


def resolve_templates(template: str | Sequence[str]) -> tuple[str, ...]:
    """The templates that `template` means: one with `{}`, several, or a name of `TEMPLATES`.

    Raises:
        TextError: no template, one without `{}`, or an unknown name.
    """
    if isinstance(template, str):
        if template in TEMPLATES:
            return TEMPLATES[template]
        templates: tuple[Any, ...] = (template,)
    elif isinstance(template, Sequence) and not isinstance(template, (bytes, bytearray)):
        templates = tuple(template)
    else:
        raise TextError(
            f"a template must be a text, a list of texts or one of {_names()}, got {type(template).__name__}",
            fix=f'pass template="{DEFAULT_TEMPLATE}"',
        )
    if not templates:
        raise TextError("the list of templates is empty", fix=f'pass template="{DEFAULT_TEMPLATE}"')
    for one in templates:
        if not isinstance(one, str):
            raise TextError(f"a template must be a text, got {type(one).__name__}: {one!r:.60}")
        if "{}" not in one:
            near = get_close_matches(one, TEMPLATES, n=1)
            fix = f'did you mean template="{near[0]}"?' if near else f'such as "{DEFAULT_TEMPLATE}"'
            raise TextError(f"template {one!r} has no {{}} for the label, nor is it one of {_names()}", fix=fix)
    return templates


def check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels as they are, once they are fit to be told apart.

    Raises:
        TextError: no labels, a label that is empty or no text, or two that are the same.
    """
    if isinstance(labels, (str, bytes)) or not isinstance(labels, Sequence):
        raise TextError(
            f"labels must be a list of texts, got {type(labels).__name__}: {labels!r:.60}",
            fix='put them into a list: ["a dog", "a cat"]',
        )
    if not labels:
        raise TextError("the list of labels is empty", fix='pass at least one label: ["a dog", "a cat"]')
    seen: dict[str, int] = {}
    for index, label in enumerate(labels):
        if not isinstance(label, str):
            raise TextError(f"label {index} must be a text, got {type(label).__name__}: {label!r:.60}")
        plain = " ".join(label.split())
        if not plain:
            raise TextError(f"label {index} is empty: {label!r}", fix="remove it, or write the label out")
        if plain in seen:
            raise TextError(f"labels {seen[plain]} and {index} are the same: {plain!r}", fix="name each label once")
        seen[plain] = index
    return tuple(labels)


def fill_templates(labels: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Every template with every label, (K * T) texts, those of a label side by side."""
    return [template.replace("{}", label) for label in labels for template in templates]


def _names() -> str:
    return ", ".join(repr(name) for name in TEMPLATES)
