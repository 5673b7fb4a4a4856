from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from bir_core.errors import BIRError
from bir_core.metrics import gradient_share, psnr, rgb_to_y, ssim, ssim_volume


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


@pytest.mark.parametrize("border", [0, 4])
def test_values_are_those_of_pyiqa(border):
    """Of pictures of 8 bits. On luma pyiqa is told to take YCbCr, for its own choice, YIQ, has
    another range; and for SSIM it rounds luma to whole steps, which the papers' code does not."""
    reason = "pyiqa is not installed"
    psnr_of_pyiqa = pytest.importorskip("pyiqa.archs.psnr_arch", reason=reason).PSNR
    ssim_of_pyiqa = pytest.importorskip("pyiqa.archs.ssim_arch", reason=reason).SSIM
    restored, hq = ((image * 255).round() / 255 for image in pair(5))
    for channel, psnr_tolerance, ssim_tolerance in (("rgb", 1e-4, 1e-6), ("y", 1e-4, 5e-4)):
        settings = {"test_y_channel": channel == "y", "crop_border": border}
        luma = {"color_space": "ycbcr"}
        expected = psnr_of_pyiqa(**settings, **luma)(restored, hq).flatten().double()
        ours = psnr(restored, hq, channel=channel, border=border)
        torch.testing.assert_close(ours, expected, rtol=0, atol=psnr_tolerance)
        expected = ssim_of_pyiqa(**settings, **luma)(restored, hq).flatten().double()
        ours = ssim(restored, hq, channel=channel, border=border)
        torch.testing.assert_close(ours, expected, rtol=0, atol=ssim_tolerance)


def smoothed(array, axes, mode):
    """Gaussian mean along some axes by scipy, with the window of SSIM."""
    window = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    for axis in axes:
        array = ndimage.correlate1d(array, window / window.sum(), axis=axis, mode=mode)
    return array


def similarity_by_scipy(a, b, axes, mode):
    mean_a, mean_b = smoothed(a, axes, mode), smoothed(b, axes, mode)
    var_a = smoothed(a * a, axes, mode) - mean_a**2
    var_b = smoothed(b * b, axes, mode) - mean_b**2
    covariance = smoothed(a * b, axes, mode) - mean_a * mean_b
    c1, c2 = 1e-4, 9e-4
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean()


@pytest.mark.parametrize(
    ("measure", "axes", "mode"),
    [(ssim_volume, (0, 1, 2), "nearest"), (partial(ssim, zero_padding=True), (0, 1), "constant")],
)
def test_the_other_windows_of_ssim(measure, axes, mode):
    restored, hq = pair(7, height=9)  # smaller than the window
    for index in range(2):
        expected = similarity_by_scipy(as_numpy(restored[index]), as_numpy(hq[index]), axes, mode)
        assert float(measure(restored, hq)[index]) == pytest.approx(expected, abs=1e-9)


def test_gradients_as_a_share_of_the_originals():
    restored, hq = pair(0)
    y = rgb_to_y(hq.double())
    blurred = 0.5 * hq + 0.25 * (hq.roll(1, -1) + hq.roll(-1, -1))
    assert torch.equal(gradient_share(hq, hq), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(gradient_share(0.25 * hq, hq), torch.full((2,), 0.25).double())
    assert (gradient_share(blurred, hq, border=2) < 0.9).all()
    noisier = hq + 0.5 * torch.randn(hq.shape, generator=torch.Generator().manual_seed(0))
    assert (gradient_share(noisier, hq) > 1.1).all()
    by_hand = sum(
        float((y[0, 0, i, j] - y[0, 0, i + a, j + b]).abs())
        for a, b in ((0, 1), (1, 0))
        for i in range(y.shape[2] - a)
        for j in range(y.shape[3] - b)
    )
    flat = torch.zeros_like(hq)
    flat[..., 0, 0] = 1  # two neighbours differ, by the range of Y
    expected = 2 * 219 / 255 / by_hand
    assert float(gradient_share(flat, hq)[0]) == pytest.approx(expected, rel=1e-6)
