"""Whether an encoder, as it runs here, still answers the bundle's golden samples as the checkpoint did."""

from __future__ import annotations

from clipdeploy.runtime.selftest.check import SelfTest, self_test

__all__ = ["SelfTest", "self_test"]
