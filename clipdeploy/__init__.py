"""clipdeploy takes a CLIP checkpoint to the edge.

    import clipdeploy

    clip = clipdeploy.load("bundle/")
    clip.classify("photo.jpg", ["a dog", "a cat"])

Importing this package loads numpy, Pillow and tokenizers at most; PyTorch, ONNX and click never.
"""

from __future__ import annotations

__version__ = "0.1.0"
