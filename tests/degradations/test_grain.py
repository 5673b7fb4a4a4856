"""Film grain against its formula."""

import math
from dataclasses import replace

import pytest
import torch

from bir_core.degradations import degrade, get_preset
from bir_core.degradations.grain import film_grain
from bir_core.errors import BIRError

GRAIN = get_preset("film_grain")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def many(value: float, *, size: float, strength: float = 20.0, count: int = 8) -> torch.Tensor:
    """Grain of flat colour pictures."""
    flat = torch.full((count, 3, 64, 64), value)
    widths, levels = torch.full((count,), size), torch.full((count,), strength)
    return film_grain(flat, levels, widths, torch.zeros(count, dtype=torch.bool), seeded(0))


def test_each_pixel_is_the_weighted_sum_of_the_formula():
    """By loops over a small picture, from the same white noise."""
    height, width, size, strength = 5, 6, 0.8, 12.0
    picture = torch.rand(1, 3, height, width, generator=seeded(1))
    reach = math.ceil(3 * size)
    shape = (1, 3, height + 2 * reach, width + 2 * reach)
    white = torch.randn(shape, generator=seeded(2)).tolist()[0]
    places = range(-reach, reach + 1)
    kernel = {
        (a, b): math.exp(-(a * a + b * b) / (2 * size * size)) for a in places for b in places
    }
    norm = math.sqrt(sum(weight * weight for weight in kernel.values()))
    expected = torch.empty(3, height, width)
    for channel in range(3):
        for row in range(height):
            for column in range(width):
                value = float(picture[0, channel, row, column])
                total = sum(
                    weight * white[channel][row + reach + a][column + reach + b]
                    for (a, b), weight in kernel.items()
                )
                deviation = strength / 255 * 2 * math.sqrt(value * (1 - value))
                expected[channel, row, column] = deviation * total / norm
    got = film_grain(
        picture,
        torch.tensor([strength]),
        torch.tensor([size]),
        torch.zeros(1, dtype=torch.bool),
        seeded(2),
    )
    torch.testing.assert_close(got[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.5, 0.8, 1.0])
def test_the_deviation_is_that_of_independent_grains(value):
    expected = 20 / 255 * 2 * math.sqrt(value * (1 - value))
    assert float(many(value, size=0.5).std()) == pytest.approx(expected, rel=0.02, abs=1e-9)


def test_neighbours_belong_together():
    grain = many(0.5, size=1.5)
    variance = grain.square().mean()
    for distance in (1, 2, 3):
        together = (grain[..., distance:] * grain[..., :-distance]).mean() / variance
        assert float(together) == pytest.approx(math.exp(-(distance**2) / 9), abs=0.03)


def test_the_border_has_as_much_as_the_middle():
    grain = many(0.5, size=1.5, count=32)
    border = torch.cat([grain[..., :2].flatten(), grain[..., :2, :].flatten()])
    assert float(border.std()) == pytest.approx(float(grain.std()), rel=0.03)


def test_black_and_white_film_has_one_grain_for_all_channels():
    flat = torch.full((2, 3, 16, 16), 0.5)
    grain = film_grain(
        flat, torch.full((2,), 20.0), torch.full((2,), 0.6), torch.tensor([True, False]), seeded(0)
    )
    assert torch.equal(grain[0, 0], grain[0, 1]) and torch.equal(grain[0, 0], grain[0, 2])
    assert not torch.equal(grain[1, 0], grain[1, 1])


def test_the_scan_follows_and_may_reduce():
    hq = torch.rand(2, 3, 22, 27, generator=seeded(3))
    preset = replace(GRAIN, scan=get_preset("clean_x1"))
    made = degrade(hq, preset, generator=seeded(0), noise=seeded(9), scale=2)
    assert torch.equal(made.hq, hq[..., :26])
    draws = made.draws
    grain = film_grain(
        made.hq, draws["grain_strength"], draws["grain_size"], draws["grain_grey"], seeded(9)
    )
    grainy = (made.hq + grain).clamp(0, 1)
    reduced = degrade(grainy, get_preset("clean_x1"), generator=seeded(0), scale=2).lq
    modes = made.draws["resize_mode"]
    assert modes == ["bicubic", "bicubic"]
    assert torch.equal(made.lq, reduced)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"strength": (-1.0, 2.0)}, "strength should be a range"),
        ({"size": (0.0, 1.0)}, "size should be a range"),
        ({"grey_probability": -0.1}, "grey_probability should be a probability"),
    ],
)
def test_impossible_ranges_are_refused(wrong, message):
    with pytest.raises(BIRError, match=message):
        replace(GRAIN, **wrong)
