"""What is traced: one encoder and the L2 norm behind it, rewritten so that its graph is lean."""
