"""What runs a bundle fastest on this machine, of what answers rightly: measured once, and remembered."""

from __future__ import annotations

from clipdeploy.runtime.auto.decide import choose

__all__ = ["choose"]
