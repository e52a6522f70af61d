"""Frames in, results out, newest first; see `stream.py`."""
