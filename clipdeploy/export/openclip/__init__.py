"""Checkpoints that open_clip builds."""
