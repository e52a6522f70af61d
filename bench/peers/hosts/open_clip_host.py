"""open_clip, as its README shows it: eager, with a DataLoader, compiled, in bfloat16 by autocast."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from frame import in_batches, serve, threads_of_torch


class OpenClip:
    def __init__(self, checkpoint: Path, threads: int) -> None:
        import open_clip
        import torch

        threads_of_torch(threads)
        self.torch, self.threads = torch, threads
        name = "ViT-B-32-quickgelu"
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(
            name, pretrained=str(checkpoint / "checkpoint.pt")
        )
        self.model.eval()
        self.tokenizer = open_clip.get_tokenizer(name)

    def mode(self, workers: bool = False, compiled: bool = False, autocast: bool = False) -> Any:
        return Mode(self, workers, compiled, autocast)


class Mode:
    def __init__(self, peer: OpenClip, workers: bool, compiled: bool, autocast: bool) -> None:
        self.peer, self.workers, self.autocast = peer, workers, autocast
        image, text = peer.model.encode_image, peer.model.encode_text
        if compiled:
            image, text = (peer.torch.compile(call, dynamic=False) for call in (image, text))
        self.encode_image, self.encode_text = image, text

    def files(self, paths: list[str], batch: int) -> Any:
        from PIL import Image

        torch, preprocess = self.peer.torch, self.peer.preprocess
        if self.workers:
            return self._loaded(paths, batch)
        rows = []
        for names in in_batches(paths, batch):
            rows += self._image(torch.stack([preprocess(Image.open(name)) for name in names]))
        return rows

    def _loaded(self, paths: list[str], batch: int) -> Any:
        loader = self.peer.torch.utils.data.DataLoader(
            Files(paths, self.peer.preprocess), batch_size=batch, num_workers=self.peer.threads
        )
        return [row for pixels in loader for row in self._image(pixels)]

    def file(self, path: str) -> Any:
        from PIL import Image

        return self._image(self.peer.preprocess(Image.open(path)).unsqueeze(0))

    def texts(self, texts: list[str], batch: int) -> Any:
        rows: list[Any] = []
        for some in in_batches(texts, batch):
            rows += self._run(self.encode_text, self.peer.tokenizer(some))
        return rows

    def _image(self, pixels: Any) -> Any:
        return self._run(self.encode_image, pixels)

    def _run(self, encode: Any, given: Any) -> Any:
        torch = self.peer.torch
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if self.autocast:
                stack.enter_context(torch.autocast("cpu", dtype=torch.bfloat16))
            embeds = encode(given)
            embeds = embeds / embeds.norm(dim=-1, keepdim=True)
        return list(embeds.float().numpy())


class Files:
    """A dataset of files, as torch's own documentation writes one."""

    def __init__(self, paths: list[str], preprocess: Any) -> None:
        self.paths, self.preprocess = paths, preprocess

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        from PIL import Image

        return self.preprocess(Image.open(self.paths[index]))


if __name__ == "__main__":
    serve(OpenClip)
