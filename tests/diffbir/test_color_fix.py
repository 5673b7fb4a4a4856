"""Colour fixes against the official code and their purpose."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import load_vectors

from bir_core.diffbir.color_fix import adain_color_fix, wavelet_color_fix, wavelet_split
from bir_core.errors import BIRError

VECTORS, _ = load_vectors("diffbir_colorfix")
CONTENT, STYLE = VECTORS["content"], VECTORS["style"]
FIXES = {"wavelet": wavelet_color_fix, "adain": adain_color_fix}
EXACT = {"rtol": 1e-6, "atol": 1e-6}


@pytest.mark.parametrize("name", FIXES)
def test_equals_official(name):
    ours = FIXES[name](CONTENT, STYLE)
    torch.testing.assert_close(ours[..., ::3, ::3], VECTORS[f"{name}_sub3"], **EXACT)


def test_wavelet_split_equals_official():
    high, low = wavelet_split(CONTENT)
    torch.testing.assert_close(high[..., ::3, ::3], VECTORS["content_high_sub3"], **EXACT)
    torch.testing.assert_close(low[..., ::3, ::3], VECTORS["content_low_sub3"], **EXACT)


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40))
def test_any_size(height, width):
    generator = torch.Generator().manual_seed(height * 50 + width)
    image = torch.rand(2, 3, height, width, generator=generator)
    torch.testing.assert_close(wavelet_color_fix(image, image), image)
    if height * width > 1:
        torch.testing.assert_close(adain_color_fix(image, image), image)


@pytest.mark.parametrize("name", FIXES)
def test_a_shift_of_colour_is_undone(name):
    shifted = CONTENT + torch.tensor([0.2, -0.1, 0.05]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(FIXES[name](shifted, CONTENT), CONTENT, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", FIXES)
def test_an_image_of_a_batch_is_fixed_as_if_alone(name):
    content, style = torch.cat([CONTENT, STYLE]), torch.cat([STYLE, CONTENT])
    together = FIXES[name](content, style)
    torch.testing.assert_close(together[:1], FIXES[name](CONTENT, STYLE))
    torch.testing.assert_close(together[1:], FIXES[name](STYLE, CONTENT))


@pytest.mark.parametrize("name", FIXES)
def test_two_sizes_are_refused(name):
    with pytest.raises(BIRError, match="one shape"):
        FIXES[name](CONTENT, STYLE[..., 1:])


def test_adain_refuses_a_single_pixel():
    pixel = CONTENT[..., :1, :1]
    with pytest.raises(BIRError, match="at least 2 pixels"):
        adain_color_fix(pixel, pixel)
