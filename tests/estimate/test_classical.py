"""What needs no network."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bir_core.estimate.classical import colour_cast, contrast, greyness, wavelet_noise


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
    for measured in (greyness(image), contrast(image), wavelet_noise(image)):
        assert measured.value >= 0 and measured.spread >= 0
