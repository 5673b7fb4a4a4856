"""What needs no network."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bir_core.estimate.classical import (
    colour_cast,
    contrast,
    greyness,
    sharpness,
    wavelet_noise,
)
from bir_core.images import resize


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sigma", [1.0, 5.0, 20.0])
@pytest.mark.parametrize("size", [(64, 64), (300, 500)])
def test_noise_on_a_smooth_picture(sigma, size):
    slope = torch.linspace(0.3, 0.6, size[1]).expand(1, 3, *size)
    found = wavelet_noise(slope + sigma / 255 * noise(1, 3, *size))
    # The median of n coefficients is known to about 1.2 / sqrt(n); windows overlap or repeat.
    assert found.value == pytest.approx(sigma, rel=0.1)
    assert found.spread < 0.15 * sigma


def test_a_picture_without_detail_has_no_noise():
    assert wavelet_noise(torch.full((1, 3, 1, 1), 0.5)).value == 0
    assert wavelet_noise(torch.full((1, 3, 200, 90), 0.5)).value == 0


def squares(height=200, width=300, side=25):
    """Grey, steps of a known height at known places, in both directions."""
    rows, columns = torch.arange(height) // side, torch.arange(width) // side
    dark = (rows[:, None] + columns) % 2 == 0
    return torch.where(dark, 0.3, 0.7).expand(1, 3, -1, -1)


def test_the_sharpness_of_a_step():
    # Along a line across a step of height 1 the two bands are the Laplacian, +-1/4 beside the step,
    # and once - twice, by hand: taps 1 4 6 4 1 of 16, then the same two pixels apart.
    line = (torch.arange(64) >= 32).double()
    once = smoothed(line, 1)
    coarser = (once - smoothed(once, 2)).square().sum()
    step = (2 * 0.25**2 / coarser).item()
    columns = (torch.arange(80) >= 40).float().expand(1, 3, 80, 80)
    assert sharpness(columns).value == pytest.approx(step, rel=1e-4)
    assert sharpness(columns.transpose(2, 3)).value == pytest.approx(step, rel=1e-4)
    assert sharpness(0.2 + 0.1 * columns).value == pytest.approx(step, rel=1e-4)


def smoothed(line, distance):
    taps = zip((-2, -1, 0, 1, 2), (1, 4, 6, 4, 1), strict=True)
    places = torch.arange(len(line))
    return sum(w / 16 * line[(places + d * distance).clamp(0, len(line) - 1)] for d, w in taps)


@pytest.mark.parametrize("factor", [3, 4])
def test_enlarged_pictures_are_softer_also_under_a_little_noise(factor):
    sharp = squares()
    soft = resize(sharp, 200 * factor, 300 * factor, mode="bicubic")
    assert sharpness(sharp).value > 0.25
    found = sharpness(soft)
    assert found.value < 0.18 and found.spread < found.value
    noisy = sharpness(soft + 2 / 255 * noise(*soft.shape))
    assert found.value < noisy.value < 0.25


def test_a_picture_without_edges_is_not_called_soft():
    for height, width in ((1, 1), (90, 200)):
        flat = sharpness(torch.full((1, 3, height, width), 0.5))
        assert (flat.value, flat.spread) == (1, 0)


def test_greyness_is_the_share_without_colour():
    image = torch.rand(1, 1, 40, 60, generator=torch.Generator().manual_seed(0)).repeat(1, 3, 1, 1)
    assert greyness(image).value == 1 and greyness(image).spread == 0
    image[:, 0, :, :15] = (image[:, 0, :, :15] + 0.5) % 1
    assert greyness(image).value == pytest.approx(0.75, abs=0.02)
    assert greyness((image * 255 + 2 * noise(*image.shape).sign()) / 255).value < 1


@settings(max_examples=15, deadline=None)
@given(st.floats(0.1, 1.0), st.floats(0.0, 1.0))
def test_a_faded_picture_has_as_much_less_contrast(factor, place):
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    faded = image * factor + (1 - factor) * place
    assert contrast(faded).value == pytest.approx(contrast(image).value * factor, rel=1e-3)


def test_a_colour_cast_is_found_in_steps():
    image = 0.5 + 0.05 * noise(1, 1, 700, 40).expand(1, 3, -1, -1)
    shift = torch.tensor([12.0, 0.0, -12.0]).view(1, 3, 1, 1) / 255
    assert colour_cast(image + shift) == pytest.approx((12, 0, -12), abs=1e-2)
    assert colour_cast(image) == pytest.approx((0, 0, 0), abs=1e-2)


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (2, 1), (1, 2000)])
def test_the_smallest_pictures(size):
    image = torch.rand(1, 3, *size)
    for measured in (greyness(image), contrast(image), wavelet_noise(image), sharpness(image)):
        assert measured.value >= 0 and measured.spread >= 0
