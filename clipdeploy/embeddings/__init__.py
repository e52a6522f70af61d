"""Many pictures or texts to one file of vectors, resumable."""

from __future__ import annotations

from clipdeploy.embeddings.files import Summary, Vectors, read_summary
from clipdeploy.embeddings.job import EmbedRequest, EmbedResult, embed

__all__ = ["EmbedRequest", "EmbedResult", "Summary", "Vectors", "embed", "read_summary"]
