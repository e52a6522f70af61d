"""Checkpoints in the layout of Hugging Face transformers."""
