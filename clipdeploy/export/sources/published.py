"""What open_clip knows of the weights published for its architectures: tags, activations, files, neighbours."""

from __future__ import annotations

import difflib

import open_clip
from open_clip.factory import get_model_config

from clipdeploy.errors import CheckpointError

_QUICK = "-quickgelu"


def uses_quick_gelu(architecture: str) -> bool:
    """Whether an architecture's configuration says QuickGELU."""
    return bool((get_model_config(architecture) or {}).get("quick_gelu", False))


def unknown_architecture(name: str) -> CheckpointError:
    """The error for a name that is no architecture, with the nearest ones."""
    found = near(name)
    some = "did you mean " + ", ".join(found) + "?" if found else "name one that open_clip.list_models() gives,"
    return CheckpointError(
        f"unknown architecture {name!r}, and there is no such folder", fix=f"{some} or hf-hub:ORG/REPO, local-dir:PATH"
    )


def near(name: str, cutoff: float = 0.5) -> list[str]:
    """The architectures whose names are like `name`."""
    lower = {known.lower(): known for known in open_clip.list_models()}
    return [lower[match] for match in difflib.get_close_matches(name.lower(), lower, n=4, cutoff=cutoff)]


def unknown_tag(name: str, tag: str) -> CheckpointError:
    """The error for a tag that an architecture does not have."""
    twin = _twin(name)
    if open_clip.get_pretrained_cfg(twin, tag):
        return CheckpointError(
            f"{name}: the weights {tag!r} were trained with {_activation(_tag_quick_gelu(twin, tag))}, "
            "which is not this architecture's activation",
            fix=f"use the architecture {twin} with --pretrained {tag}",
        )
    return CheckpointError(f"{name}: {tag!r} is neither a tag of published weights nor a file", fix=tags_hint(name))


def tags_hint(name: str) -> str:
    """How to name weights for an architecture, with the tags there are."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    quick = uses_quick_gelu(name)
    fitting = [tag for tag in tags if _tag_quick_gelu(name, tag) == quick]
    others = [tag for tag in tags if tag not in fitting]
    if not tags:
        return "there are no published weights for it: give a file with --pretrained FILE"
    hint = "give a file with --pretrained FILE"
    if fitting:
        hint = f"choose weights with --pretrained TAG, one of {', '.join(fitting)}; or {hint}"
    return hint + (f" ({', '.join(others)} need the architecture {name}{_QUICK})" if others and not quick else "")


def check_tag_activation(name: str, tag: str, repo: str) -> None:
    """Raise CheckpointError when a tag's weights were trained with another activation than the architecture's.

    open_clip only warns of this, and the embeddings are wrong without a sign of it.
    """
    trained, built = _tag_quick_gelu(name, tag), uses_quick_gelu(name)
    if trained == built:
        return
    twin = _twin(name)
    fix = f"use the architecture {twin} with --pretrained {tag}"
    if not open_clip.get_pretrained_cfg(twin, tag):
        fix = f"use the repository, which states its own: hf-hub:{repo}"
    raise CheckpointError(
        f"{name} uses {_activation(built)}, but open_clip lists the weights {tag!r} as trained with "
        f"{_activation(trained)}",
        fix=fix,
    )


def check_file_activation(name: str, filename: str) -> None:
    """Raise CheckpointError when a file is called like published weights of another activation."""
    configs = [open_clip.get_pretrained_cfg(*pair) for pair in open_clip.list_pretrained()]
    same_name = [config for config in configs if config.get("url", "").rpartition("/")[2] == filename]
    trained = {bool(config.get("quick_gelu", False)) for config in same_name}
    built = uses_quick_gelu(name)
    if trained == {not built}:
        raise CheckpointError(
            f"{name} uses {_activation(built)}, but the weights published as {filename} were trained with "
            f"{_activation(not built)}",
            fix=f"use the architecture {_twin(name)}; or rename the file if it holds something else",
        )


def openai_mismatch(name: str, label: str) -> CheckpointError:
    """The error for OpenAI's own weights in an architecture with GELU."""
    twin = _twin(name)
    known = twin in open_clip.list_models()
    return CheckpointError(
        f"{label}: the weights are OpenAI's own, trained with QuickGELU, but the architecture uses GELU",
        fix=f"use {twin}" if known else 'set "quick_gelu": true in model_cfg of open_clip_config.json',
    )


def _twin(name: str) -> str:
    """The name of the same architecture with the other activation."""
    return name.removesuffix(_QUICK) if name.endswith(_QUICK) else name + _QUICK


def _tag_quick_gelu(name: str, tag: str) -> bool:
    return bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False))


def _activation(quick_gelu: bool) -> str:
    return "QuickGELU" if quick_gelu else "GELU"
