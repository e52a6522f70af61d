"""Whether an encoder, as it runs here, still answers the bundle's golden samples as the checkpoint did."""

from __future__ import annotations

from clipdeploy.runtime.selftest.check import SelfTest, self_test, self_test_engine
from clipdeploy.runtime.selftest.frames import self_test_graph

__all__ = ["SelfTest", "self_test", "self_test_engine", "self_test_graph"]
