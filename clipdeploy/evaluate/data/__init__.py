"""Datasets as they lie on disk: which layout one has, and its pictures with the truth about them.

a folder a class                    folders.py
tar shards (webdataset)             webdataset.py, shards.py, tars.py
a table of pictures and captions    tables.py
the same as JSON                    documents.py
"""

from __future__ import annotations

from clipdeploy.evaluate.data.layouts import read_dataset
from clipdeploy.evaluate.data.subset import limited, subset

__all__ = ["limited", "read_dataset", "subset"]
