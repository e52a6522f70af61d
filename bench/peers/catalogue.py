"""Who takes part, how each is installed, and in which modes each runs.

A peer is a package that embeds pictures and texts with CLIP and installs from PyPI; one environment and one process
each. A mode is one way to run it that its own documentation shows; modes of a peer share its process and its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Gate = Literal["float32", "few bits"]
Form = Literal["open_clip", "openai", "transformers", "sentence-transformers", "hub", "onnx", "gguf", "bundle"]

HOSTS = Path(__file__).parent / "hosts"
REPOSITORY = Path(__file__).resolve().parents[2]

COMPILER = "a C++ compiler"


@dataclass(frozen=True)
class Mode:
    """One way to run a peer.

    Attributes:
        name: beside the peer's, in tables.
        settings: what its host is given.
        texts: embeds the texts too; a mode whose text encoder is the very one of a mode before it need not.
        single: embeds one file alone too; what only matters for many files need not.
        needs: what must be on the machine besides the packages.
        computes: its matrix products, for the share of what the machine can do: `fp32`, `bf16` or `int8`.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    texts: bool = True
    single: bool = True
    needs: str | None = None
    computes: str = "fp32"


@dataclass(frozen=True)
class Peer:
    """A package that takes part.

    Attributes:
        name: in tables.
        what: it is, in a few words.
        requirements: what pip installs; `{repository}` is this one.
        host: script in `hosts/` that runs it.
        form: of the checkpoint, as `checkpoint.py` writes it.
        modes: of which the first also answers for import, first answer and memory.
        no_texts: why it embeds no texts of this checkpoint; empty where it does.
        variables: of its process; `{form}` is the folder of its checkpoint.
        ours: it is clipdeploy.
        batches: it computes several at once; one that does not is warmed up with few.
    """

    name: str
    what: str
    requirements: tuple[str, ...]
    host: str
    form: Form
    modes: tuple[Mode, ...]
    no_texts: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    ours: bool = False
    batches: bool = True

    @property
    def folder(self) -> str:
        """Of its environment."""
        return "".join(c if c.isalnum() else "-" for c in self.name.lower()).strip("-")


@dataclass(frozen=True)
class NotTaken:
    """A package that a user may come across and that takes no part, and why."""

    name: str
    why: str


_TORCH = ("torch==2.15.0", "torchvision==0.29.2")
_TOKENS = "tokenizers==0.23.2"

PEERS: tuple[Peer, ...] = (
    Peer(
        "clipdeploy[cpu]",
        "this toolkit's runtime on ONNX Runtime",
        ("{repository}[cpu]",),
        "clipdeploy_host.py",
        "bundle",
        (
            Mode("fp32", {"backend": "onnxruntime", "precision": "fp32"}),
            Mode("int8", {"backend": "onnxruntime", "precision": "int8"}, texts=False, computes="int8"),
        ),
        ours=True,
    ),
    Peer(
        "clipdeploy[openvino]",
        "this toolkit's runtime on OpenVINO",
        ("{repository}[openvino]",),
        "clipdeploy_host.py",
        "bundle",
        (
            Mode("fp32", {"backend": "openvino", "precision": "fp32"}),
            Mode("bf16", {"backend": "openvino", "precision": "bf16"}, computes="bf16"),
            Mode("int8", {"backend": "openvino", "precision": "int8"}, texts=False, computes="int8"),
            Mode("auto", {"backend": "auto", "precision": "auto"}, computes="int8"),
        ),
        ours=True,
    ),
    Peer(
        "open_clip",
        "the reference, PyTorch",
        (*_TORCH, "open_clip_torch==3.3.0"),
        "open_clip_host.py",
        "open_clip",
        (
            Mode("eager"),
            Mode("eager, DataLoader workers", {"workers": True}, texts=False, single=False),
            Mode("torch.compile", {"compiled": True}, needs=COMPILER),
            Mode("bf16 autocast", {"autocast": True}, computes="bf16"),
        ),
    ),
    Peer(
        "OpenAI CLIP",
        "clip-anytorch: OpenAI's own code, for any PyTorch",
        (*_TORCH, "clip-anytorch==2.6.0", "setuptools<81"),
        "openai_host.py",
        "openai",
        (Mode("eager"),),
    ),
    Peer(
        "transformers",
        "Hugging Face, PyTorch; its fast picture processor",
        (*_TORCH, "transformers==5.23.0", "pillow"),
        "transformers_host.py",
        "transformers",
        (Mode("eager"), Mode("bf16", {"dtype": "bfloat16"}, computes="bf16")),
    ),
    Peer(
        "sentence-transformers",
        "PyTorch",
        (*_TORCH, "sentence-transformers==6.2.0", "pillow"),
        "sentence_transformers_host.py",
        "sentence-transformers",
        (Mode("eager"),),
    ),
    Peer(
        "optimum-onnx",
        "Hugging Face, ONNX Runtime",
        (*_TORCH, "optimum-onnx[onnxruntime]==0.1.0", "transformers<4.58", "pillow"),
        "optimum_onnx_host.py",
        "transformers",
        (Mode("fp32"),),
    ),
    Peer(
        "optimum-intel",
        "Hugging Face, OpenVINO",
        (*_TORCH, "optimum-intel[openvino]==2.2.0", "pillow"),
        "optimum_intel_host.py",
        "transformers",
        (Mode("default", computes="bf16"), Mode("f32", {"hint": "f32"})),
    ),
    Peer(
        "ONNX Runtime",
        "bare: torch's own export, Pillow and numpy",
        ("onnxruntime==1.31.1", "numpy", "pillow", _TOKENS),
        "onnx_host.py",
        "onnx",
        (
            Mode("fp32", {"engine": "onnxruntime"}),
            Mode("int8 dynamic", {"engine": "onnxruntime", "graph": "int8"}, computes="int8"),
        ),
    ),
    Peer(
        "OpenVINO",
        "bare: torch's own export, Pillow and numpy",
        ("openvino==2026.4.1", "numpy", "pillow", _TOKENS),
        "onnx_host.py",
        "onnx",
        (
            Mode("f32", {"engine": "openvino", "hint": "f32"}),
            Mode("default", {"engine": "openvino"}, computes="bf16"),
        ),
    ),
    Peer(
        "fastembed",
        "Qdrant, ONNX Runtime",
        ("fastembed==0.9.1",),
        "fastembed_host.py",
        "onnx",
        (Mode("fp32"),),
    ),
    Peer(
        "onnx-clip",
        "Lakera, ONNX Runtime",
        ("onnx-clip==4.0.1",),
        "onnx_clip_host.py",
        "onnx",
        (Mode("fp32"),),
    ),
    Peer(
        "faster-clip",
        "an engine of its own in Rust, weights in 8 bits",
        ("faster-clip==0.4.0",),
        "faster_clip_host.py",
        "sentence-transformers",
        (Mode("int8"),),
        no_texts="its text encoder is a multilingual DistilBERT, never the checkpoint's own",
        variables={"FASTER_CLIP_CACHE": "{form}"},
    ),
    Peer(
        "clip_cpp",
        "clip.cpp: ggml, C++",
        ("clip_cpp==0.5.0",),
        "clip_cpp_host.py",
        "gguf",
        (Mode("f32", {"file": "f32"}), Mode("f16", {"file": "f16"})),
        batches=False,
    ),
    Peer(
        "embed-anything",
        "candle, Rust",
        ("embed-anything==0.7.1",),
        "embed_anything_host.py",
        "hub",
        (Mode("fp32"),),
        variables={"HF_HOME": "{form}"},
        batches=False,
    ),
)
"""In the order of the tables."""

NOT_TAKEN = (
    NotTaken("uform 3.1", "runs the models of its own authors only, which are no CLIP of this checkpoint"),
    NotTaken("openai-clip 1.0", "the same code as clip-anytorch, which takes part; imports pkg_resources"),
    NotTaken("rclip 4.0", "an application for searching photographs with a model of its own choice, no library"),
    NotTaken("CLIP_benchmark 1.6", "evaluates accuracy with open_clip, which takes part"),
)


def chosen(only: Sequence[str]) -> tuple[Peer, ...]:
    """The peers whose name holds one of `only`, ours always; all of them for none.

    Raises:
        SystemExit: one of `only` names nobody.
    """
    for name in only:
        if not any(name.lower() in peer.name.lower() for peer in PEERS):
            raise SystemExit(f"no peer is called {name}; there are: {', '.join(peer.name for peer in PEERS)}")
    if not only:
        return PEERS
    return tuple(peer for peer in PEERS if any(name.lower() in peer.name.lower() for name in only))
