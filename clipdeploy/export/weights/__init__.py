"""Weights: read without running code, and taken into a model only when every name, shape and value fits."""
