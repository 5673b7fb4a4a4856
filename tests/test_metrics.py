import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from bir_core.errors import BIRError
from bir_core.metrics import psnr, rgb_to_y, ssim


def pair(seed, height=40, width=53):
    generator = torch.Generator().manual_seed(seed)
    hq = torch.rand(2, 3, height, width, generator=generator)
    return (hq + 0.1 * torch.randn(hq.shape, generator=generator)).clamp(0, 1), hq


def as_numpy(image):
    return image.double().permute(1, 2, 0).numpy()


def test_luma_of_the_corners_of_the_colour_cube():
    """BT.601 in studio range: black is 16, white 235, pure green 144.553."""
    colours = torch.tensor([[0.0, 0, 0], [1, 1, 1], [0, 1, 0]], dtype=torch.float64)
    luma = rgb_to_y(colours[:, :, None, None]).flatten() * 255
    torch.testing.assert_close(luma, torch.tensor([16, 235, 144.553], dtype=torch.float64))


@given(seed=st.integers(0, 1000), border=st.integers(0, 5))
def test_rgb_agrees_with_scikit_image(seed, border):
    restored, hq = pair(seed)
    for index in range(2):
        cut = np.s_[border : 40 - border, border : 53 - border]
        a, b = as_numpy(restored[index])[cut], as_numpy(hq[index])[cut]
        expected = peak_signal_noise_ratio(b, a, data_range=1)
        assert float(psnr(restored, hq, border=border)[index]) == pytest.approx(expected, abs=1e-9)
        # scikit-image averages over the part that the window covers wholly, as ours.
        expected = structural_similarity(
            a,
            b,
            data_range=1,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert float(ssim(restored, hq, border=border)[index]) == pytest.approx(expected, abs=1e-9)


def test_luma_agrees_with_scikit_image():
    restored, hq = pair(3)
    a, b = (as_numpy(rgb_to_y(image.double())[0])[..., 0] for image in (restored, hq))
    expected = structural_similarity(
        a, b, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert float(ssim(restored, hq, channel="y")[0]) == pytest.approx(expected, abs=1e-9)
    expected = peak_signal_noise_ratio(b, a, data_range=1)
    assert float(psnr(restored, hq, channel="y")[0]) == pytest.approx(expected, abs=1e-9)


def test_equal_pictures():
    _, hq = pair(0)
    assert torch.isinf(psnr(hq, hq)).all()
    torch.testing.assert_close(ssim(hq, hq), torch.ones(2, dtype=torch.float64))


def test_a_known_error():
    """An error of 0.1 everywhere is 20 dB."""
    hq = torch.full((1, 3, 20, 20), 0.5, dtype=torch.float64)
    assert float(psnr(hq + 0.1, hq)) == pytest.approx(20)


@pytest.mark.parametrize(
    ("restored", "hq", "border"),
    [
        ((1, 3, 20, 20), (1, 3, 20, 21), 0),
        ((3, 20, 20), (3, 20, 20), 0),
        ((1, 3, 9, 9), (1, 3, 9, 9), 5),
    ],
)
def test_unfit_shapes(restored, hq, border):
    with pytest.raises(BIRError):
        psnr(torch.zeros(restored), torch.zeros(hq), border=border)


def test_too_small_for_the_window():
    with pytest.raises(BIRError, match="11 x 11"):
        ssim(torch.zeros(1, 3, 12, 12), torch.zeros(1, 3, 12, 12), border=1)
