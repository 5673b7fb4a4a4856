"""PSNR and SSIM as the papers of this field measure them, computed in float64."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import BIRError

Channel = Literal["y", "rgb"]
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5


def rgb_to_y(image: Tensor) -> Tensor:
    """BT.601 luma in studio range: (16 + 65.481 R + 128.553 G + 24.966 B) / 255.

    Args:
        image: (B, 3, H, W) in [0, 1].

    Returns:
        (B, 1, H, W) in [16/255, 235/255].
    """
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=image.dtype, device=image.device)
    return ((image * weights.view(3, 1, 1)).sum(1, keepdim=True) + 16) / 255


def _prepared(restored: Tensor, hq: Tensor, channel: Channel, border: int) -> tuple[Tensor, Tensor]:
    if restored.shape != hq.shape or restored.ndim != 4 or restored.shape[1] != 3:
        raise BIRError(
            "A metric expects two RGB images of the same size, but shapes "
            f"{tuple(restored.shape)} and {tuple(hq.shape)} came; resize or crop one of them first."
        )
    if 2 * border >= min(hq.shape[-2:]) or border < 0:
        raise BIRError(
            f"The border to leave out should be from 0 to less than half of the image, but "
            f"{border} came for {hq.shape[-1]} x {hq.shape[-2]} pixels; choose a smaller one."
        )
    images = []
    for image in (restored, hq):
        image = image.double()
        image = rgb_to_y(image) if channel == "y" else image
        images.append(
            image[..., border : image.shape[-2] - border, border : image.shape[-1] - border]
        )
    return images[0], images[1]


def psnr(restored: Tensor, hq: Tensor, *, channel: Channel = "rgb", border: int = 0) -> Tensor:
    """Peak signal-to-noise ratio in dB for a peak of 1; infinity for equal images.

    Args:
        restored, hq: (B, 3, H, W) in [0, 1].
        channel: `rgb` takes the mean error of all channels, `y` that of `rgb_to_y`.
        border: pixels to leave out on each side.

    Returns:
        (B,) float64.

    Raises:
        BIRError: other shapes, or a border that leaves nothing.
    """
    restored, hq = _prepared(restored, hq, channel, border)
    return -10 * torch.log10((restored - hq).square().mean(dim=(1, 2, 3)))


def gradient_share(restored: Tensor, hq: Tensor, *, border: int = 0) -> Tensor:
    """How much of the original's detail a picture has, true or invented: the mean absolute
    difference of neighbouring pixels of Y, over that of the original. Blur is below 1, noise above.
    Arguments, result and errors as `psnr`; infinity for an original without any."""
    amounts = [_gradients(image) for image in _prepared(restored, hq, "y", border)]
    return amounts[0] / amounts[1]


def _gradients(image: Tensor) -> Tensor:
    down, right = (image.diff(dim=dim).abs().sum(dim=(1, 2, 3)) for dim in (-2, -1))
    return down + right


def ssim(
    restored: Tensor,
    hq: Tensor,
    *,
    channel: Channel = "rgb",
    border: int = 0,
    zero_padding: bool = False,
) -> Tensor:
    """Structural similarity (Wang et al., "Image quality assessment", 2004): Gaussian window of 11
    x 11 pixels and sigma 1.5, K1 = 0.01, K2 = 0.03; of RGB the mean over the channels. Arguments,
    result and errors as `psnr`.

    Args:
        zero_padding: let the window reach over the edges, where pictures are continued by zeros, as
            the papers on inpainting do; else it stays inside.

    Raises:
        BIRError: also images smaller than a window that stays inside.
    """
    restored, hq = _prepared(restored, hq, channel, border)
    if not zero_padding and min(hq.shape[-2:]) < SSIM_WINDOW:
        raise BIRError(
            f"SSIM expects at least {SSIM_WINDOW} x {SSIM_WINDOW} pixels inside the border, but "
            f"{hq.shape[-1]} x {hq.shape[-2]} came; use a larger picture."
        )
    if zero_padding:
        restored, hq = (F.pad(image, (SSIM_WINDOW // 2,) * 4) for image in (restored, hq))
    return _similarity(restored, hq, _window_mean).mean(dim=(1, 2, 3))


def ssim_volume(restored: Tensor, hq: Tensor, *, border: int = 0) -> Tensor:
    """SSIM of RGB pictures as MATLAB's ssim computes it from H x W x 3 arrays, in the papers on
    deblurring: the array is a volume, the Gaussian window has three dimensions, and the values at
    its faces go on outside. Arguments, result and errors as `psnr`.
    """
    restored, hq = _prepared(restored, hq, "rgb", border)
    radius = (SSIM_WINDOW // 2,) * 6
    volumes = [F.pad(image[:, None], radius, mode="replicate") for image in (restored, hq)]
    return _similarity(volumes[0], volumes[1], _volume_mean).mean(dim=(1, 2, 3, 4))


def _similarity(a: Tensor, b: Tensor, mean: Callable[[Tensor], Tensor]) -> Tensor:
    mean_a, mean_b = mean(a), mean(b)
    var_a = mean(a.square()) - mean_a.square()
    var_b = mean(b.square()) - mean_b.square()
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    return luminance * structure


def _window(like: Tensor) -> Tensor:
    offsets = torch.arange(SSIM_WINDOW, dtype=like.dtype, device=like.device) - SSIM_WINDOW // 2
    window = torch.exp(-offsets.square() / (2 * SSIM_SIGMA**2))
    return window / window.sum()


def _window_mean(image: Tensor) -> Tensor:
    window = _window(image)
    channels = image.shape[1]
    rows = window.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    columns = window.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    return F.conv2d(F.conv2d(image, rows, groups=channels), columns, groups=channels)


def _volume_mean(volume: Tensor) -> Tensor:
    window = _window(volume)
    for shape in ((1, 1, -1, 1, 1), (1, 1, 1, -1, 1), (1, 1, 1, 1, -1)):
        volume = F.conv3d(volume, window.view(shape))
    return volume
