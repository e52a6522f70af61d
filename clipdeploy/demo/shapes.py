"""The outlines of the demo world's shapes, as closed polygons around the origin that reach about 1 from it."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from clipdeploy.errors import InputError

Outline = NDArray[np.float64]

_ROUND = np.linspace(0.0, 2 * np.pi, 72, endpoint=False)


def _polar(angles: Outline, radii: Outline | float) -> Outline:
    around: Outline = np.stack((np.cos(angles) * radii, np.sin(angles) * radii), axis=1)
    return around


def _star() -> Outline:
    angles = -np.pi / 2 + np.arange(10) * np.pi / 5
    return _polar(angles, np.where(np.arange(10) % 2 == 0, 1.0, 0.42))


def _flower() -> Outline:
    angles = np.linspace(0.0, 2 * np.pi, 180, endpoint=False)
    return _polar(angles, 0.42 + 0.58 * np.abs(np.cos(angles * 2.5)) ** 0.8)


def _heart() -> Outline:
    t = _ROUND
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack((x / 16.5, (y - 2.4) / 15.5), axis=1)


def _crescent() -> Outline:
    """A disc less a disc of 0.82 moved by 0.5: the outer arc one way, the inner arc back."""
    moved, inner = 0.5, 0.82
    cut_x = (1.0 - inner * inner + moved * moved) / (2 * moved)
    outer = float(np.arccos(cut_x))
    back = float(np.arccos((cut_x - moved) / inner))
    out = _polar(np.linspace(outer, 2 * np.pi - outer, 48), 1.0)
    home = _polar(np.linspace(2 * np.pi - back, back, 48), inner) + np.array([moved, 0.0])
    both: Outline = np.concatenate((out, home)) + np.array([0.2, 0.0])
    return both


def _drop() -> Outline:
    t = _ROUND
    return np.stack((0.72 * np.sin(t) * np.sin(t / 2) ** 1.5 * 1.25, -np.cos(t)), axis=1)


def _cross() -> Outline:
    a = 0.32
    points = [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a)]
    return np.array([*points, (-a, -a)], dtype=np.float64) * 0.95


def _arrow() -> Outline:
    points = [(-1, -0.27), (0.05, -0.27), (0.05, -0.78), (1, 0), (0.05, 0.78), (0.05, 0.27), (-1, 0.27)]
    return np.array(points, dtype=np.float64)


@cache
def outline(shape: str) -> Outline:
    """The polygon of a shape: (points, 2) float64, x to the right, y downwards. A ring's hole is `ring_hole`."""
    match shape:
        case "circle" | "ring":
            return _polar(_ROUND, 0.95 if shape == "circle" else 1.0)
        case "square":
            return np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], dtype=np.float64) * 0.82
        case "triangle":
            return np.array([(0, -0.95), (0.95, 0.75), (-0.95, 0.75)], dtype=np.float64)
        case "diamond":
            return np.array([(0, -1.05), (0.68, 0), (0, 1.05), (-0.68, 0)], dtype=np.float64)
        case "star":
            return _star()
        case "cross":
            return _cross()
        case "heart":
            return _heart()
        case "crescent":
            return _crescent()
        case "arrow":
            return _arrow()
        case "flower":
            return _flower()
        case "drop":
            return _drop()
        case _:
            raise InputError(f"unknown shape {shape!r}", fix="see clipdeploy.demo.world.SHAPES")


def ring_hole() -> Outline:
    """What is cut out of a ring: (points, 2) float64."""
    return _polar(_ROUND, 0.55)
