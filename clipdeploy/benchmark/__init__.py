"""How fast a bundle is on this machine, by backend, precision and batch; what it costs in memory and at the start."""
