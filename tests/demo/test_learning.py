"""The parts of training that could be wrong without anyone seeing it."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra: pip install 'clipdeploy[export]'")
open_clip = pytest.importorskip("open_clip", reason="training needs the extra: pip install 'clipdeploy[export]'")

from clipdeploy.demo.captions import ABOVE, LEFT_OF, UNSAID, Claim, caption, scene_codes  # noqa: E402
from clipdeploy.demo.forward import encode_image, encode_text  # noqa: E402
from clipdeploy.demo.learn import augment, contrastive_loss, to_pixels, truth, untold  # noqa: E402
from clipdeploy.demo.recipe import RECIPES  # noqa: E402
from clipdeploy.demo.vocabulary import Vocabulary  # noqa: E402
from clipdeploy.demo.world import COLOURS, HELD_OUT, SEEN, SHAPES, sample_scene  # noqa: E402

_CPU = torch.device("cpu")


def _truth_of(scenes: list, claims: list[Claim]) -> torch.Tensor:  # type: ignore[type-arg]
    codes = [scene_codes(scene) for scene in scenes]
    return truth(
        torch.tensor([c[0] for c in codes], dtype=torch.int8),
        torch.tensor([c[1] for c in codes]),
        torch.tensor([c[2] for c in codes], dtype=torch.int8),
        torch.tensor([claim.codes() for claim in claims], dtype=torch.int8),
    )


def test_every_caption_is_true_of_its_own_picture() -> None:
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng, things=1 + i % 3) for i in range(150)]
    for _ in range(3):
        true = _truth_of(scenes, [caption(rng, scene)[1] for scene in scenes])
        assert true.diagonal().all()
        assert true.float().mean() < 0.2


def test_truth_minds_attributes_and_relations() -> None:
    things = torch.full((2, 3, 4), -2, dtype=torch.int8)
    things[0, 0] = torch.tensor([0, 0, 0, 0])  # a red circle on the left, a blue square on the right
    things[0, 1] = torch.tensor([5, 1, 1, 0])
    things[1, 0] = torch.tensor([0, 0, 0, 0])  # a red circle alone
    places = torch.zeros(2, 3, 2)
    places[0, 0, 0], places[0, 1, 0] = -0.3, 0.3
    setting = torch.zeros(2, 4, dtype=torch.int8)
    red, square = (0, UNSAID, UNSAID, UNSAID), (UNSAID, 1, UNSAID, UNSAID)
    claims = [
        Claim(first=red),
        Claim(first=square),
        Claim(first=red, second=square, has_second=True),
        Claim(first=red, second=square, has_second=True, relation=LEFT_OF),
        Claim(first=square, second=red, has_second=True, relation=LEFT_OF),
        Claim(first=red, second=square, has_second=True, relation=ABOVE),
        Claim(first=red, setting=(1, UNSAID, UNSAID, UNSAID)),
    ]
    found = truth(things, places, setting, torch.tensor([c.codes() for c in claims], dtype=torch.int8))
    assert found.tolist() == [[True, True, True, True, False, False, False], [True] + [False] * 6]


def test_what_is_never_shown_together_is_not_held_against_a_picture() -> None:
    colour, shape = HELD_OUT[3]
    c, s = COLOURS.index(colour), SHAPES.index(shape)
    fine = next(i for i, name in enumerate(SHAPES) if (colour, name) in SEEN)
    things = torch.full((2, 3, 4), -2, dtype=torch.int8)
    things[0, 0] = torch.tensor([c, fine, 0, 0])  # of the colour, in a shape that is shown
    things[1, 0] = torch.tensor([COLOURS.index(next(n for n in COLOURS if (n, shape) in SEEN)), s, 0, 0])
    claims = [
        Claim(first=(UNSAID, s, UNSAID, UNSAID)),  # the shape alone: never true of the first picture's colour
        Claim(first=(c, UNSAID, UNSAID, UNSAID)),  # the colour alone: never true of the second picture's shape
        Claim(first=(c, fine, UNSAID, UNSAID)),  # a pair: right or wrong like any
    ]
    found = untold(things, torch.tensor([claim.codes() for claim in claims], dtype=torch.int8))
    assert found.tolist() == [[True, False, False], [False, True, False]]


def test_a_caption_true_of_both_pictures_is_no_wrong_answer() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    same = vectors[[0, 0, 1]]  # the first two pictures and captions are alike
    own = torch.eye(3, dtype=torch.bool)
    twins = own.clone()
    twins[0, 1] = twins[1, 0] = True
    scale = torch.tensor(50.0)
    assert contrastive_loss(same, same, scale, own) > 0.4
    assert contrastive_loss(same, same, scale, twins) < 1e-3


@pytest.mark.parametrize("variant", sorted(RECIPES))
def test_training_computes_what_open_clip_computes(variant: str) -> None:
    torch.manual_seed(0)
    config = RECIPES[variant].model_config()
    model = open_clip.CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"], quick_gelu=False).eval()
    tokens = open_clip.SimpleTokenizer()(["a photo of a red circle.", "two blue hearts above one large green ring"])
    ends = tokens.argmax(1)
    with torch.inference_mode():
        short = encode_text(model, tokens[:, : int(ends.max()) + 1], ends)
        torch.testing.assert_close(short, model.encode_text(tokens, normalize=True), atol=1e-5, rtol=0)
        pixels = torch.randn(2, 3, 64, 64)
        torch.testing.assert_close(
            encode_image(model, pixels), model.encode_image(pixels, normalize=True), atol=1e-5, rtol=0
        )


def test_the_small_vocabulary_speaks_clip() -> None:
    texts = [["a photo of an orange ring.", "a chequered star to the left of a low resolution drop"]]
    tokenizer = open_clip.SimpleTokenizer()
    vocabulary = Vocabulary(tokenizer, texts)
    tokens, ends = vocabulary.tokens(texts)
    for i, text in enumerate(texts[0]):
        length = int(ends[0, i]) + 1
        assert vocabulary.ids[tokens[0, i, :length]].tolist() == tokenizer(text)[0, :length].tolist()
        assert not tokens[0, i, length:].any()
    unknown, _ = vocabulary.tokens([["a photo of a walrus"]])
    assert (unknown[0, 0] == 0).any()
    small = torch.randn(vocabulary.size, 4)
    small[0] = 0.0
    table = vocabulary.expand(small)
    assert table.shape == (49408, 4)
    torch.testing.assert_close(table[vocabulary.ids[1:]], small[1:])
    assert int((table.abs().sum(1) > 0).sum()) == vocabulary.size - 1


def test_augmentation_mirrors_and_shifts() -> None:
    pixels = torch.arange(8 * 16 * 16 * 3, dtype=torch.int64).remainder(251).to(torch.uint8).view(8, 16, 16, 3)
    flip = torch.tensor([True] + [False] * 7)
    still = augment(pixels, flip, torch.Generator(), reach=0)
    assert torch.equal(still[0], pixels[0].flip(1))
    assert torch.equal(still[1:], pixels[1:])
    moved = augment(pixels, torch.zeros(8, dtype=torch.bool), torch.Generator().manual_seed(1))
    assert moved.shape == pixels.shape
    assert not torch.equal(moved, pixels)
    assert to_pixels(moved.to(_CPU)).shape == (8, 3, 16, 16)
