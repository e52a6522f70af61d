"""Scene -> sentences, and what each sentence claims.

A caption says true things and leaves others out at random. Its `Claim` keeps what it said as small integers, so
that training can tell which *other* pictures it is true of as well, and not treat those as wrong answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipdeploy.demo.world import (
    BACKGROUNDS,
    COLOURS,
    FOCUSES,
    GRAINS,
    LIGHTS,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    Thing,
)

TEMPLATE = "a photo of a {}."

UNSAID = -1
LEFT_OF, ABOVE = 0, 1

_MEDIA = (
    *("photo", "photo", "photo", "photo", "picture", "picture", "image", "photograph", "snapshot", "shot"),
    *("rendering", "rendition", "drawing", "painting", "sketch", "cartoon", "doodle", "sculpture", "tattoo"),
    *("jpeg photo", "close-up photo", "cropped photo", "toy", "origami", "plastic", "plushie", "embroidery", "art"),
)
_MOODS = ("good", "bad", "nice", "cool", "weird", "clean", "dirty", "low resolution", "pixelated", "hard to see")
_OPENERS = ("", "", "", "there is ", "this is ", "here is ", "we can see ", "itap of ", "look at ", "i saw ")
_TAILS = ("", "", "", "", " in the scene", " in a video game", " in front of the camera", " seen from above")
_PLACES: dict[str, tuple[str, ...]] = {
    "plain": ("on a plain background", "on a plain surface"),
    "gradient": ("on a gradient", "on a gradient background"),
    "noisy": ("on a noisy background", "on a carpet"),
    "wood": ("on wood", "on a wooden table", "on a wooden floor"),
    "grass": ("on grass", "on a lawn", "in the grass"),
    "sky": ("in the sky", "in front of clouds", "against a blue sky"),
    "brick": ("on a brick wall", "on bricks", "in front of a brick wall"),
}
_LIGHT_WORDS = {"dark": ("dark", "dim", "underexposed"), "bright": ("bright", "overexposed")}
_SIZE_WORDS = {"small": ("small", "small", "little", "tiny"), "large": ("large", "large", "big", "huge")}
_TEXTURE_WORDS = {
    "plain": ("plain", "plain-coloured"),
    "striped": ("striped", "stripy"),
    "dotted": ("dotted", "spotted"),
    "checkered": ("checkered", "chequered"),
}
_NOUNS = ("object", "thing", "shape", "one")

THING_FIELDS = (COLOURS, SHAPES, SIZES, TEXTURES)
SCENE_FIELDS = (BACKGROUNDS, LIGHTS, FOCUSES, GRAINS)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a caption said. Indices into the world's tuples, -1 where it said nothing.

    `first`, `second`: colour, shape, size, texture; `has_second` tells an unnamed second object from none.
    `relation`: LEFT_OF or ABOVE, of the first to the second. `setting`: background, light, focus, grain.
    """

    first: tuple[int, int, int, int] = (UNSAID,) * 4
    second: tuple[int, int, int, int] = (UNSAID,) * 4
    has_second: bool = False
    relation: int = UNSAID
    setting: tuple[int, int, int, int] = (UNSAID,) * 4

    def codes(self) -> list[int]:
        """Fourteen small integers: first (4), second (4), has_second, relation, setting (4)."""
        return [*self.first, *self.second, int(self.has_second), self.relation, *self.setting]


def class_name(pair: tuple[str, str]) -> str:
    """("red", "circle") -> "red circle"."""
    return f"{pair[0]} {pair[1]}"


def with_article(words: str) -> str:
    """ "orange ring" -> "an orange ring"."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _one_of(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[int(rng.integers(len(words)))]


def _phrase(rng: np.random.Generator, thing: Thing, *, full: bool) -> tuple[str, tuple[int, int, int, int]]:
    """ "large striped red circle", with some of it left out; colour and shape are both kept when `full`."""
    said = [UNSAID] * 4
    words: list[str] = []
    if rng.random() < 0.3:
        words.append(_one_of(rng, _SIZE_WORDS[thing.size]))
        said[2] = SIZES.index(thing.size)
    if rng.random() < (0.25 if thing.texture == "plain" else 0.4):
        words.append(_one_of(rng, _TEXTURE_WORDS[thing.texture]))
        said[3] = TEXTURES.index(thing.texture)
    rng.shuffle(words)
    drop = 1.0 if full else rng.random()
    if drop >= 0.14:
        words.append(thing.colour)
        said[0] = COLOURS.index(thing.colour)
    if drop >= 0.28 or drop < 0.14:
        words.append(thing.shape)
        said[1] = SHAPES.index(thing.shape)
    else:
        words.append(_one_of(rng, _NOUNS))
    return " ".join(words), (said[0], said[1], said[2], said[3])


def _prefix(rng: np.random.Generator, scene: Scene, said: list[int]) -> str:
    """ "a blurry photo of ", or less."""
    if rng.random() < 0.22:
        return _one_of(rng, _OPENERS)
    camera = scene.camera
    words: list[str] = []
    if camera.focus == "blurry" and rng.random() < 0.6:
        words.append("blurry")
        said[2] = FOCUSES.index("blurry")
    if camera.light != "normal" and rng.random() < 0.6:
        words.append(_one_of(rng, _LIGHT_WORDS[camera.light]))
        said[1] = LIGHTS.index(camera.light)
    if camera.grain == "grainy" and rng.random() < 0.6:
        words.append(_one_of(rng, ("grainy", "noisy")))
        said[3] = GRAINS.index("grainy")
    if not words and rng.random() < 0.2:
        words.append(_one_of(rng, _MOODS))
    words.append(_one_of(rng, _MEDIA))
    phrase = " ".join(words)
    article = with_article(phrase) if rng.random() < 0.85 else _one_of(rng, ("the ", "my ", "one ", "")) + phrase
    return f"{_one_of(rng, _OPENERS) if rng.random() < 0.15 else ''}{article} of "


def _named(rng: np.random.Generator, phrase: str) -> str:
    pick = rng.random()
    if pick < 0.75:
        return with_article(phrase)
    return f"the {phrase}" if pick < 0.9 else f"one {phrase}" if pick < 0.95 else phrase


def _relation(a: Thing, b: Thing) -> tuple[int, bool]:
    """Which relation is plainest between two things, and whether it holds from a to b (else from b to a)."""
    dx, dy = b.x - a.x, b.y - a.y
    return (LEFT_OF, dx > 0) if abs(dx) > abs(dy) else (ABOVE, dy > 0)


_RELATION_WORDS = {
    (LEFT_OF, True): ("to the left of", "left of", "on the left of"),
    (LEFT_OF, False): ("to the right of", "right of", "on the right of"),
    (ABOVE, True): ("above", "over"),
    (ABOVE, False): ("below", "under"),
}


def caption(rng: np.random.Generator, scene: Scene) -> tuple[str, Claim]:
    """One true sentence about a scene, and what it claims."""
    setting = [UNSAID] * 4
    order = rng.permutation(len(scene.things))
    a = scene.things[int(order[0])]
    prefix = _prefix(rng, scene, setting)
    if len(scene.things) > 1 and rng.random() < 0.75:
        b = scene.things[int(order[1])]
        (words_a, first), (words_b, second) = _phrase(rng, a, full=False), _phrase(rng, b, full=False)
        relation, forward = _relation(a, b)
        if rng.random() < 0.65:
            link = _one_of(rng, _RELATION_WORDS[(relation, forward)])
            if not forward:
                first, second = second, first
        else:
            link, relation = _one_of(rng, ("and", "next to", "and", "with")), UNSAID
        body = f"{_named(rng, words_a)} {link} {_named(rng, words_b)}"
        has_second = True
    else:
        words_a, first = _phrase(rng, a, full=rng.random() < 0.4)
        body, relation, second, has_second = _named(rng, words_a), UNSAID, (UNSAID,) * 4, False
    if rng.random() < 0.25:
        body += " " + _one_of(rng, _PLACES[scene.backdrop.kind])
        setting[0] = BACKGROUNDS.index(scene.backdrop.kind)
    elif rng.random() < 0.3:
        body += _one_of(rng, _TAILS)
    text = prefix + body + ("." if rng.random() < 0.7 else "")
    said = (setting[0], setting[1], setting[2], setting[3])
    return text, Claim(first, second, has_second, relation, said)


def scene_codes(scene: Scene) -> tuple[list[list[int]], list[list[float]], list[int]]:
    """A scene as numbers: 3 x (colour, shape, size, texture), -2 where absent; 3 x (x, y); the setting's four."""
    things = [[-2] * 4 for _ in range(3)]
    places = [[0.0, 0.0] for _ in range(3)]
    for i, thing in enumerate(scene.things):
        names = (thing.colour, thing.shape, thing.size, thing.texture)
        things[i] = [field.index(name) for field, name in zip(THING_FIELDS, names, strict=True)]
        places[i] = [thing.x, thing.y]
    camera = scene.camera
    names = (scene.backdrop.kind, camera.light, camera.focus, camera.grain)
    return things, places, [field.index(name) for field, name in zip(SCENE_FIELDS, names, strict=True)]
