import colorsys
import math

import pytest
import torch

from bir_core.errors import BIRError
from bir_core.training.data import places
from bir_core.training.data.cuts import cut_picture
from bir_core.training.data.places import affine, bend, perspective, places_window, shift_hsv
from bir_core.training.methods.table import load_recipe

SIZE = torch.Size((40, 60))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def picture(height=40, width=60):
    return torch.rand(3, height, width, generator=generator(9))


def test_without_changes_it_is_a_window(monkeypatch):
    monkeypatch.setattr(places, "chance", lambda probability, generator: False)
    image = (picture() * 255).to(torch.uint8)
    corners = set()
    for seed in range(40):
        window = places_window(image, 32, generator(seed))
        found = [
            (top, left)
            for top in range(9)
            for left in range(29)
            if torch.allclose(window, image[:, top : top + 32, left : left + 32] / 255, atol=1e-4)
        ]
        assert len(found) == 1
        corners.update(found)
    assert {top for top, _ in corners} == set(range(9))
    assert max(left for _, left in corners) > 24


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (40, 60), (90, 20)])
def test_any_size_gives_a_window_in_range(size):
    for seed in range(25):
        window = places_window(picture(*size), 32, generator(seed))
        assert window.shape == (3, 32, 32)
        assert window.dtype == torch.float32
        assert window.min() >= 0 and window.max() <= 1


def test_draws_come_from_the_generator_alone():
    state = torch.get_rng_state()
    first, again, other = (places_window(picture(), 32, generator(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


def test_affine_undoes_zoom_turn_and_shear_about_the_centre():
    centre = torch.tensor([29.5, 19.5, 1.0])
    torch.testing.assert_close(affine(SIZE, 1.2, 33.0, 0.1) @ centre, centre)
    # A point right of the centre was moved twice as far, and a quarter turn from x to y.
    moved = affine(SIZE, 2.0, 90.0, 0.0) @ torch.tensor([29.5, 19.5 + 8, 1.0])
    torch.testing.assert_close(moved, torch.tensor([29.5 + 4, 19.5, 1.0]), atol=1e-4, rtol=0)
    # A shear of 45 degrees moves what is one lower by one to the left, and 1 / sqrt(2) lower.
    root = math.sqrt(0.5)
    moved = affine(SIZE, 1.0, 0.0, 45.0) @ torch.tensor([29.5 - root, 19.5 + root, 1.0])
    torch.testing.assert_close(moved, torch.tensor([29.5, 20.5, 1.0]), atol=1e-4, rtol=0)


def test_perspective_draws_the_corners_out_from_inside():
    torch.testing.assert_close(perspective(SIZE, 0.0, generator()), torch.eye(3), atol=1e-5, rtol=0)
    shifts = []
    for seed in range(60):
        matrix = perspective(SIZE, 0.05, generator(seed))
        for x, y in ((0, 0), (59, 0), (59, 39), (0, 39)):
            u, v, w = (matrix @ torch.tensor([x, y, 1.0])).tolist()
            inwards = (abs(u / w - x) / 59, abs(v / w - y) / 39)
            assert -1e-3 < u / w < 59 + 1e-3 and -1e-3 < v / w < 39 + 1e-3
            shifts.extend(inwards)
    # The mean of a half normal distribution.
    assert sum(shifts) / len(shifts) == pytest.approx(0.05 * math.sqrt(2 / math.pi), rel=0.15)


def test_the_lens_bends_about_the_centre():
    points = torch.tensor([[30.0, 20.0], [45.0, 20.0], [30.0, 5.0]])
    bent = bend(points, (40, 60), 0.05)
    stretch = 15 * (1 + 0.05 * 0.25**2 + 0.05 * 0.25**4)
    expected = torch.tensor([[30.0, 20.0], [30 + stretch, 20.0], [30.0, 20 - stretch]])
    torch.testing.assert_close(bent, expected)
    assert torch.equal(bend(points, (40, 60), 0.0), points)


def test_hue_saturation_and_value_are_shifted_in_steps_of_8_bit():
    image = picture(4, 5) * 0.6 + 0.2
    shifted = shift_hsv(image, 5.0, -12.0, 3.0)
    for y in range(4):
        for x in range(5):
            h, s, v = colorsys.rgb_to_hsv(*image[:, y, x].tolist())
            s, v = min(max(s - 12 / 255, 0), 1), min(v + 3 / 255, 1)
            expected = torch.tensor(colorsys.hsv_to_rgb((h + 5 / 180) % 1, s, v))
            torch.testing.assert_close(shifted[:, y, x], expected, atol=1e-4, rtol=0)


def test_recipes_choose_it():
    recipe = load_recipe("inpainting_places_s1")
    cut = cut_picture(picture(), 32, "window", recipe.data.augmentation, generator(3))
    assert torch.equal(cut, places_window(picture(), 32, generator(3)))
    with pytest.raises(BIRError, match='crop "window" and a degradation for the augmentation'):
        load_recipe("inpainting_places_s1", ("data.crop=center",))
