import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bir_core.degradations.noise import gaussian_noise, poisson_noise

COLOUR = torch.zeros(3, dtype=torch.bool)
GREY = torch.ones(3, dtype=torch.bool)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def test_gaussian_noise_has_each_image_own_width(generator):
    sigma = torch.tensor([1.0, 10.0, 30.0])
    noise = gaussian_noise(torch.zeros(3, 3, 128, 128), sigma, COLOUR, generator)
    count = noise[0].numel()
    for one, expected in zip(noise * 255, sigma.tolist(), strict=True):
        assert float(one.std()) == pytest.approx(expected, rel=5 / math.sqrt(2 * count))
        assert abs(float(one.mean())) < 5 * expected / math.sqrt(count)
    channels = torch.corrcoef(noise[0].flatten(1))
    assert (channels - torch.eye(3)).abs().max() < 0.05


def test_grey_gaussian_noise_is_one_plane_for_the_batch(generator):
    sigma = torch.tensor([1.0, 10.0, 30.0])
    noise = gaussian_noise(torch.zeros(3, 3, 32, 32), sigma, GREY, generator)
    assert torch.equal(noise[:, :1].expand_as(noise), noise)
    torch.testing.assert_close(noise[1], noise[0] * 10)
    torch.testing.assert_close(noise[2], noise[0] * 30)


def test_a_batch_mixes_grey_and_colour(generator):
    grey = torch.tensor([True, False, True])
    noise = gaussian_noise(torch.zeros(3, 3, 32, 32), torch.full((3,), 9.0), grey, generator)
    assert torch.equal(noise[0], noise[2])
    assert torch.equal(noise[0, 0], noise[0, 2])
    assert not torch.equal(noise[1, 0], noise[1, 1])


@pytest.mark.parametrize("levels, peak", [(1, 1), (2, 2), (3, 4), (16, 16), (17, 32), (200, 256)])
def test_poisson_counts_have_a_peak_that_follows_the_number_of_levels(levels, peak, generator):
    """Counts over peak: with noise added, every pixel is a whole multiple of 1 / peak."""
    pixels = torch.arange(3 * 64 * 64) % levels + 20
    image = (pixels.float() / 255).view(1, 3, 64, 64)
    noise = poisson_noise(image, torch.ones(1), COLOUR[:1], generator)
    counts = (image + noise) * peak
    torch.testing.assert_close(counts, counts.round(), rtol=0, atol=1e-4)
    assert counts.round().max() > 0
    if peak > 1:
        odd = counts.round().long() % 2 == 1  # a smaller peak would not do
        assert bool(odd.any())


def test_poisson_noise_has_the_variance_of_counts(generator):
    ramp = torch.arange(256).repeat_interleave(64).view(1, 1, 128, 128).expand(1, 3, -1, -1) / 255
    scale = 2.0
    noise = poisson_noise(ramp, torch.tensor([scale]), COLOUR[:1], generator)
    for low in (0, 64, 128, 192):
        rows = slice(low // 2, low // 2 + 32)
        expected = scale**2 * float(ramp[..., rows, :].mean()) / 256
        assert float(noise[..., rows, :].var()) == pytest.approx(expected, rel=0.1)
    assert abs(float(noise.mean())) < 0.002


def test_grey_poisson_noise_is_that_of_the_luma(generator):
    image = torch.rand(3, 3, 64, 64, generator=generator)
    noise = poisson_noise(image, torch.ones(3), GREY, generator)
    assert torch.equal(noise[:, :1].expand_as(noise), noise)
    assert not torch.equal(noise[0], noise[1])
    luma = (image * torch.tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1)
    rounded = (luma * 255).round() / 255
    counts = (rounded + noise[:, 0]) * 256
    torch.testing.assert_close(counts, counts.round(), rtol=0, atol=1e-3)


def test_a_scale_of_zero_is_no_noise(generator):
    image = torch.rand(3, 3, 8, 8, generator=generator)
    assert poisson_noise(image, torch.zeros(3), COLOUR, generator).abs().max() == 0
    assert gaussian_noise(image, torch.zeros(3), COLOUR, generator).abs().max() == 0


@given(height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 1000))
def test_the_same_state_gives_the_same_noise(height, width, seed):
    image = torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(0))
    grey = torch.tensor([True, False, True])
    for make in (gaussian_noise, poisson_noise):
        first, second = (
            make(image, torch.ones(3), grey, torch.Generator().manual_seed(seed)) for _ in range(2)
        )
        assert torch.equal(first, second)
