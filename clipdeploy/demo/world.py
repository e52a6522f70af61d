"""What the demo world is made of, and how a scene is drawn from a seed.

A scene says *what* is there, in units that know no pixels: positions and radii are fractions of the picture's
short side, measured from its centre, so the same scene fits a 64 px square and a 1920x1080 frame, and a centre
crop keeps every object. `paint.py` turns a scene into pixels, `captions.py` into sentences.

A fifth of the colour-shape pairs is held out: `is_held_out` is the whole rule. `sample_scene` never shows such a
pair unless it is asked for by name, which only scoring and the sample files do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipdeploy.errors import InputError

SHAPES = (
    "circle",
    "square",
    "triangle",
    "star",
    "cross",
    "heart",
    "diamond",
    "ring",
    "crescent",
    "arrow",
    "flower",
    "drop",
)
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "white", "black")
SIZES = ("small", "large")
TEXTURES = ("plain", "striped", "dotted", "checkered")
BACKGROUNDS = ("plain", "gradient", "noisy", "wood", "grass", "sky", "brick")
LIGHTS = ("normal", "dark", "bright")
FOCUSES = ("sharp", "blurry")
GRAINS = ("clean", "grainy")

RGB = {
    "red": (212, 32, 34),
    "orange": (244, 128, 24),
    "yellow": (246, 222, 44),
    "green": (38, 162, 60),
    "cyan": (44, 206, 214),
    "blue": (32, 70, 208),
    "purple": (128, 44, 172),
    "pink": (250, 134, 186),
    "white": (244, 244, 242),
    "black": (22, 22, 26),
}

MAX_THINGS = 3

# first word of every generator's seed: training, scoring and sample files draw from streams that never meet
TRAIN_STREAM, SCORE_STREAM, SAMPLE_STREAM, VIDEO_STREAM = 11, 12, 13, 14


def is_held_out(colour: str, shape: str) -> bool:
    """True for the pairs that training never sees: two colours of every shape, two or three shapes of every colour."""
    return (COLOURS.index(colour) + 3 * SHAPES.index(shape)) % 5 == 0


PAIRS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
HELD_OUT = tuple(pair for pair in PAIRS if is_held_out(*pair))
SEEN = tuple(pair for pair in PAIRS if not is_held_out(*pair))


@dataclass(frozen=True, slots=True)
class Thing:
    """One object. `x`, `y` (of its centre, y downwards) and `radius` in short sides; `turn` in radians."""

    colour: str
    shape: str
    size: str
    texture: str
    x: float
    y: float
    radius: float
    turn: float
    rgb: tuple[float, float, float]  # 0..255, the colour as it came out this time
    texture_turn: float


@dataclass(frozen=True, slots=True)
class Backdrop:
    """What lies behind: `rgb` and `rgb2` 0..255; `seed` draws its grain at any canvas size."""

    kind: str
    rgb: tuple[float, float, float]
    rgb2: tuple[float, float, float]
    turn: float
    seed: int


@dataclass(frozen=True, slots=True)
class Camera:
    """What the lens and the sensor do. `blur` is a Gaussian's sigma in short sides; `noise` a sigma of 0..255."""

    light: str
    focus: str
    grain: str
    exposure: float
    white_balance: tuple[float, float, float]
    vignette: float
    blur: float
    noise: float
    seed: int


@dataclass(frozen=True, slots=True)
class Scene:
    """Things from the back to the front, a backdrop and a camera."""

    things: tuple[Thing, ...]
    backdrop: Backdrop
    camera: Camera


def _pick(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]


def _vary(rng: np.random.Generator, rgb: tuple[int, int, int], spread: float) -> tuple[float, float, float]:
    shade = 1.0 + spread * float(rng.uniform(-0.7, 0.5))
    tint = rng.uniform(-1.0, 1.0, 3) * 30.0 * spread
    mixed = np.clip(np.array(rgb, dtype=np.float64) * shade + tint, 0.0, 255.0)
    return float(mixed[0]), float(mixed[1]), float(mixed[2])


def _distance(a: tuple[float, float, float], b: tuple[float, float, float]) -> float:
    """Weighted RGB distance, 0..~440: close to what an eye sees, cheap, and without a colour library."""
    red_mean = (a[0] + b[0]) / 512.0
    dr, dg, db = a[0] - b[0], a[1] - b[1], a[2] - b[2]
    return float(np.sqrt(((2.0 + red_mean) * dr * dr + 4.0 * dg * dg + (3.0 - red_mean) * db * db) / 3.0))


_BACKDROP_RGB: dict[str, tuple[tuple[int, int, int], ...]] = {
    "wood": ((150, 104, 62), (184, 138, 90), (112, 74, 44), (206, 172, 128)),
    "grass": ((74, 112, 46), (104, 134, 66), (56, 88, 44), (132, 150, 84)),
    "sky": ((140, 180, 222), (110, 156, 206), (172, 200, 226)),
    "brick": ((150, 82, 66), (128, 74, 62), (172, 112, 92), (122, 106, 100)),
}


def sample_backdrop(rng: np.random.Generator, avoid: tuple[tuple[float, float, float], ...]) -> Backdrop:
    """A backdrop on which every colour of `avoid` can be told from what is behind it."""
    drawn: list[tuple[float, Backdrop]] = []
    for _ in range(12):
        kind = _pick(rng, BACKGROUNDS)
        if kind in _BACKDROP_RGB:
            choices = _BACKDROP_RGB[kind]
            base = choices[int(rng.integers(len(choices)))]
        else:
            grey = float(rng.uniform(25.0, 235.0))
            tint = rng.uniform(-32.0, 32.0, 3)
            base = (int(grey + tint[0]), int(grey + tint[1]), int(grey + tint[2]))
        rgb = _vary(rng, base, 0.2)
        other = _vary(rng, base, 0.9 if kind == "gradient" else 0.4)
        backdrop = Backdrop(kind, rgb, other, float(rng.uniform(0.0, 2 * np.pi)), int(rng.integers(2**31)))
        gap = min((min(_distance(rgb, c), _distance(other, c)) for c in avoid), default=999.0)
        if gap > 95.0:
            return backdrop
        drawn.append((gap, backdrop))
    return max(drawn, key=lambda each: each[0])[1]


def sample_camera(rng: np.random.Generator, *, clear: bool = False) -> Camera:
    """Light, focus and grain. `clear` keeps to the ordinary ones."""
    light = LIGHTS[int(rng.choice(3, p=(0.7, 0.15, 0.15)))]
    focus = FOCUSES[int(rng.choice(2, p=(0.82, 0.18)))]
    grain = GRAINS[int(rng.choice(2, p=(0.82, 0.18)))]
    if clear:
        light, focus, grain = "normal", "sharp", "clean"
    low, high = {"normal": (0.84, 1.1), "dark": (0.48, 0.64), "bright": (1.25, 1.5)}[light]
    gains = rng.uniform(0.94, 1.06, 3)
    return Camera(
        light=light,
        focus=focus,
        grain=grain,
        exposure=float(rng.uniform(low, high)),
        white_balance=(float(gains[0]), float(gains[1]), float(gains[2])),
        vignette=float(rng.uniform(0.0, 0.35)),
        blur=float(rng.uniform(0.014, 0.024) if focus == "blurry" else rng.uniform(0.0, 0.006)),
        noise=float(rng.uniform(14.0, 24.0) if grain == "grainy" else rng.uniform(0.0, 5.0)),
        seed=int(rng.integers(2**31)),
    )


def sample_thing(
    rng: np.random.Generator,
    *,
    pair: tuple[str, str] | None = None,
    at: tuple[float, float] | None = None,
    radius: tuple[float, float] | None = None,
) -> Thing:
    """One object: of `pair` (colour, shape) or of any pair that training may see; inside the central square."""
    colour, shape = SEEN[int(rng.integers(len(SEEN)))] if pair is None else pair
    if (colour, shape) not in PAIRS:
        raise InputError(
            f"no such pair in the demo world: {colour} {shape}",
            fix=f"use a colour of {', '.join(COLOURS)} and a shape of {', '.join(SHAPES)}",
        )
    size = _pick(rng, SIZES)
    low, high = radius or {"small": (0.15, 0.19), "large": (0.26, 0.36)}[size]
    r = float(rng.uniform(low, high))
    room = max(0.0, 0.5 - r * 1.02)
    x, y = at if at is not None else (float(rng.uniform(-room, room)), float(rng.uniform(-room, room)))
    free = shape in ("circle", "ring", "star", "flower", "crescent")
    turn = float(rng.uniform(-np.pi, np.pi) if free else rng.uniform(-0.26, 0.26))
    if shape == "arrow":
        turn += float(rng.integers(4)) * np.pi / 2
    texture = TEXTURES[int(rng.choice(4, p=(0.55, 0.15, 0.15, 0.15)))]
    return Thing(
        colour=colour,
        shape=shape,
        size=size,
        texture=texture,
        x=x,
        y=y,
        radius=r,
        turn=turn,
        rgb=_vary(rng, RGB[colour], 0.22),
        texture_turn=float(rng.uniform(0.0, np.pi)),
    )


def _place_apart(rng: np.random.Generator, count: int) -> list[tuple[float, float, float]]:
    """`count` discs (x, y, radius) in the central square that do not touch."""
    for _ in range(200):
        discs: list[tuple[float, float, float]] = []
        for _ in range(count):
            r = float(rng.uniform(0.14, 0.18) if rng.random() < 0.5 or count == 3 else rng.uniform(0.21, 0.25))
            room = 0.5 - r * 1.02
            x, y = (float(v) for v in rng.uniform(-room, room, 2))
            if all(np.hypot(x - a, y - b) > r + c + 0.02 for a, b, c in discs):
                discs.append((x, y, r))
        if len(discs) == count:
            return discs
    raise InputError(f"no room for {count} objects", fix=f"ask for 1 to {MAX_THINGS}")


def sample_scene(
    rng: np.random.Generator,
    *,
    things: int = 1,
    pair: tuple[str, str] | None = None,
    clear: bool = False,
) -> Scene:
    """A scene of 1 to 3 objects. With `pair` the first object is that colour and shape.

    The others, and all of them without `pair`, are pairs that training may see.
    """
    if not 1 <= things <= MAX_THINGS:
        raise InputError(f"a scene of {things} objects was asked for", fix=f"ask for 1 to {MAX_THINGS}")
    if things == 1:
        placed = [sample_thing(rng, pair=pair)]
    else:
        placed = []
        for i, (x, y, r) in enumerate(_place_apart(rng, things)):
            thing = sample_thing(rng, pair=pair if i == 0 else None, at=(x, y), radius=(r, r + 1e-9))
            size = SIZES[0] if r < 0.195 else SIZES[1]
            fields = {name: getattr(thing, name) for name in Thing.__slots__}
            placed.append(Thing(**(fields | {"size": size})))
    backdrop = sample_backdrop(rng, tuple(t.rgb for t in placed))
    return Scene(tuple(placed), backdrop, sample_camera(rng, clear=clear))


def single_scene(seed: int, pair: tuple[str, str] | None = None, *, clear: bool = False) -> Scene:
    """The scene with one object that belongs to an integer seed."""
    return sample_scene(np.random.default_rng(seed), pair=pair, clear=clear)
