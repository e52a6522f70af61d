"""Weights files: read without running code, and taken into a model only when everything fits."""
