"""Who takes part on a GPU: PyTorch, ONNX Runtime bare, and ours; each says why where it cannot run here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import clipdeploy
from bench.bare import Embed, NotHereError, Pixels
from bench.common import checkpoint_of
from clipdeploy.bundle import Bundle
from clipdeploy.errors import ClipdeployError
from clipdeploy.runtime.clip import Clip
from clipdeploy.spec import Precision, Tower

OURS = (
    ("onnxruntime:cuda", "fp16"),
    ("onnxruntime:tensorrt", "fp16"),
    ("onnxruntime:tensorrt-rtx", "fp16"),
    *((backend, precision) for backend in ("tensorrt", "tensorrt-rtx") for precision in ("fp16", "int8", "fp8")),
)


@dataclass(frozen=True)
class Peer:
    """One that embeds pixels.

    Attributes:
        host: pixels in the machine's memory to embeddings there.
        device: the same on the GPU, from a float32 tensor to what stays there, maybe still being computed; None for
            one that cannot.
        told: what it says of itself.
    """

    host: Embed
    device: Callable[[Any], object] | None = None
    told: str = ""


class TorchPeers:
    """An open_clip architecture on a device, in half precision on a GPU."""

    def __init__(self, model: str, device: str) -> None:
        import torch

        from clipdeploy.export.load import load_checkpoint

        self.torch, self.place = torch, device
        self.dtype = torch.float16 if device == "cuda" else torch.float32
        self.network: Any = load_checkpoint(checkpoint_of(model)).model.eval().to(device=device, dtype=self.dtype)

    def eager(self) -> Peer:
        """As its users call it."""
        return self._peer(self._encode)

    def compiled(self, pixels: Pixels) -> Peer:
        """`torch.compile` with CUDA graphs, for batches like `pixels`; compiled when this returns.

        Raises:
            NotHereError: it failed.
        """
        self.torch._dynamo.reset()
        mode = "reduce-overhead" if self.place == "cuda" else None
        peer = self._peer(self.torch.compile(self._encode, dynamic=False, mode=mode))
        try:
            for _ in range(3):  # the second call records the CUDA graph
                peer.host(pixels)
        except Exception as error:  # whatever a compiler may end with
            raise NotHereError(f"torch.compile failed: {first_line(error)}") from error
        return peer

    def _encode(self, tensor: Any) -> Any:
        return self.network.encode_image(tensor.to(self.dtype), normalize=True)

    def _peer(self, encode: Callable[[Any], Any]) -> Peer:
        torch = self.torch

        def device(tensor: Any) -> object:
            with torch.inference_mode():
                return encode(tensor)

        def host(pixels: Pixels) -> NDArray[np.float32]:
            with torch.inference_mode():
                found: NDArray[np.float32] = encode(torch.from_numpy(pixels).to(self.place)).float().cpu().numpy()
                return found

        return Peer(host, device)


def onnxruntime_cuda(graph: Path) -> Peer:
    """ONNX Runtime's CUDA provider as its users call it, on the device with its IO binding.

    Raises:
        NotHereError: the provider is not in the installed wheel, or did not load.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise NotHereError("onnxruntime is not installed") from error
    provider, there = "CUDAExecutionProvider", onnxruntime.get_available_providers()
    if provider not in there:
        raise NotHereError(f"onnxruntime {onnxruntime.__version__} has no {provider}; it has {', '.join(there)}")
    session = onnxruntime.InferenceSession(str(graph), providers=[provider])
    if session.get_providers()[0] != provider:
        raise NotHereError(f"onnxruntime {onnxruntime.__version__} lists {provider}, which did not load")
    name, output = session.get_inputs()[0].name, session.get_outputs()[0].name

    def device(tensor: Any) -> object:
        binding = session.io_binding()
        binding.bind_input(name, "cuda", 0, np.float32, tuple(tensor.shape), tensor.data_ptr())
        binding.bind_output(output, "cuda")
        session.run_with_iobinding(binding)
        return binding

    return Peer(lambda pixels: session.run(None, {name: pixels})[0], device)


def ours(bundle: Path, backend: str, precision: str, batch: int) -> tuple[Peer, Clip]:
    """clipdeploy; raises NotHereError where it cannot run here, with what it says."""
    try:
        clip = clipdeploy.load(bundle, backend=backend, precision=precision, usual_batch=batch, check_hashes=False)
        pixels = clip.spec.pixels
        clip.encode_pixels(np.zeros((1, 3, pixels.height, pixels.width), np.float32))  # raises now what it would later
    except ClipdeployError as error:
        raise NotHereError(str(error).replace("\n  fix:", "; fix:")) from error

    def host(pixels: Pixels) -> NDArray[np.float32]:
        return clip.encode_pixels(pixels, batch_size=batch)

    def device(tensor: Any) -> object:
        return clip.encode_pixels(tensor, batch_size=batch)

    return Peer(host, device if _takes_device(clip) else None, clip.backend.reason), clip


def _takes_device(clip: Clip) -> bool:
    """Whether pixels on the GPU stay there."""
    import torch

    if not torch.cuda.is_available():
        return False
    pixels = clip.spec.pixels
    try:
        clip.encode_pixels(torch.zeros((1, 3, pixels.height, pixels.width), device="cuda"))
    except ClipdeployError:
        return False
    return True


def build(bundle: Path, batches: list[int]) -> dict[str, str]:
    """Build what our TensorRT backends run, image encoder only; of what cannot be built, why not."""
    from clipdeploy.building.job import build_engines
    from clipdeploy.building.records import BuildRequest
    from clipdeploy.engine.records import BuildOptions
    from clipdeploy.engine_key import Profile

    largest = max(batches)
    bands = [Profile(1, 1, 1), Profile(2, 8, 32), Profile(33, 128, 256)]
    profiles = tuple(band for band in bands if band.smallest <= largest)
    refused: dict[str, str] = {}
    for backend, precision in OURS:
        if backend not in ("tensorrt", "tensorrt-rtx"):
            continue
        request = BuildRequest(
            bundle,
            precision=Precision.parse(precision).value,
            towers=(Tower.IMAGE,),
            backend=backend,
            options=BuildOptions(profiles=profiles),
        )
        print(f"building {backend} {precision}", flush=True)
        try:
            build_engines(request)
        except ClipdeployError as error:
            refused[f"{backend} {precision}"] = error.message
    return refused


def graph_of(bundle: Path, precision: Precision) -> Path:
    """The image encoder's graph."""
    return Bundle.open(bundle, check_hashes=False).graph(Tower.IMAGE, precision)


def first_line(error: Exception) -> str:
    """Of what it says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
