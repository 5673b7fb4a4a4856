"""Statistics of a patch, each on a picture that has what it is for."""

import pytest
import torch
from torch.nn import functional as F

from bir_core.degradations.jpeg import codec_jpeg
from bir_core.networks.patch_statistics import (
    BLOCK,
    CHROMA_RINGS,
    COUNT,
    LEAST_SIDE,
    LINES,
    RINGS,
    dct_matrix,
    patch_statistics,
)

NOISE, LIKENESS = slice(0, 28), slice(28, 31)
SPECTRUM = slice(31, 31 + RINGS)
AXES = slice(31 + RINGS + CHROMA_RINGS, 31 + RINGS + CHROMA_RINGS + LINES)
STEPS = slice(AXES.stop, AXES.stop + BLOCK)
ZEROS = slice(STEPS.stop, STEPS.stop + 2 * BLOCK - 1)
SHARPEST = ZEROS.stop + 2  # of the steepest places, blurred by 1 pixel


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def soft(side=96):
    small = torch.rand(1, 3, side // 4, side // 4, generator=torch.Generator().manual_seed(1))
    return F.interpolate(small, scale_factor=4, mode="bicubic").clamp(0, 1)


def test_there_are_so_many_and_they_are_finite():
    for image in (soft(), torch.zeros(2, 3, LEAST_SIDE, 31), torch.ones(1, 3, 40, LEAST_SIDE)):
        statistics = patch_statistics(image)
        assert statistics.shape == (len(image), COUNT)
        assert bool(statistics.isfinite().all()) and float(statistics.abs().max()) < 10


def test_the_median_of_the_detail_is_that_of_white_noise():
    image = 0.5 + 10 / 255 * drawn(1, 3, 128, 128)
    found = patch_statistics(image)[0, NOISE].unflatten(0, (7, 4))
    # 4096 coefficients; the median of |x| is 0.6745 sigma. The next scale has half the noise.
    assert found[1, :3].exp().tolist() == pytest.approx([6.745 + 0.1] * 3, rel=0.1)
    assert found[6, :3].exp().tolist() == pytest.approx([3.37 + 0.1] * 3, rel=0.15)
    assert patch_statistics(image)[0, SPECTRUM].mul(3).exp().mean() == pytest.approx(
        0.446 * 100,
        rel=0.1,  # of the luma: 0.299^2 + 0.587^2 + 0.114^2
    )


def test_grey_and_colour_noise():
    grey = 0.5 + 0.05 * drawn(1, 1, 64, 64).expand(1, 3, 64, 64)
    colour = 0.5 + 0.05 * drawn(1, 3, 64, 64)
    assert float(patch_statistics(grey)[0, LIKENESS].min()) > 0.99
    assert float(patch_statistics(colour)[0, LIKENESS].abs().max()) < 0.15


def test_an_enlargement_ends_the_spectrum():
    fine = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    large = F.interpolate(fine, scale_factor=2, mode="bicubic")
    lines = patch_statistics(large)[0, AXES]
    other = patch_statistics(torch.rand(1, 3, 96, 96))[0, AXES]
    half = LINES // 2
    # Power at the upper half of the frequencies: a twentieth or less.
    assert float(lines[half:].mean() - lines[:half].mean()) < -1
    assert float((other[half:].mean() - other[:half].mean()).abs()) < 0.2


@pytest.mark.parametrize("cut", [0, 3, 7])
def test_jpeg_is_seen_wherever_its_grid_lies(cut):
    clean = (soft() + 0.02 * drawn(1, 3, 96, 96)).clamp(0, 1)
    coded = codec_jpeg(clean, torch.tensor([30.0]))
    statistics = [patch_statistics(image[..., cut:, cut // 2 :])[0] for image in (clean, coded)]
    steps, zeros = ([each[part] for each in statistics] for part in (STEPS, ZEROS))
    assert float(steps[1][0]) > 1.5 * float(steps[0][0])
    # Of the upper half of the frequencies nothing is left.
    assert float(zeros[1][8:].min()) > 0.9 > 0.5 > float(zeros[0][8:].max())


def test_the_transform_is_orthonormal_and_begins_with_the_mean():
    matrix = dct_matrix()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(BLOCK), rtol=0, atol=1e-6)
    torch.testing.assert_close(matrix[0], torch.full((BLOCK,), BLOCK**-0.5))


@pytest.mark.parametrize("sigma", [0.6, 1.0, 2.0])
def test_the_sharpest_edge_tells_its_blur(sigma):
    places = torch.arange(64.0)
    edge = 0.2 + 0.6 * torch.special.ndtr((places - 31.5) / sigma)
    ratio = float(patch_statistics(edge.expand(1, 3, 64, 64))[0, SHARPEST])
    # The difference of pixels that are two apart is a blur of its own.
    expected = 0.5 * torch.tensor(1 + 1 / (sigma**2 + 1 / 3)).log()
    assert ratio == pytest.approx(float(expected), rel=0.35)
    assert COUNT == SHARPEST + 4
