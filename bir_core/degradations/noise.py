"""Gaussian and Poisson noise of a batch, colour or grey (Wang et al., "Real-ESRGAN", section 3.2).

Noise fields are drawn on the CPU and then moved, so that they do not depend on the device.
"""

import torch
from torch import Tensor


def _per_image(values: Tensor, image: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1), of the image's dtype and device."""
    return values.to(image).view(-1, 1, 1, 1)


def gaussian_noise(
    image: Tensor, sigma: Tensor, grey: Tensor, generator: torch.Generator
) -> Tensor:
    """White noise for a batch.

    Args:
        image: (B, C, H, W) float; only its shape, dtype and device count.
        sigma: (B,) standard deviations in steps of 8 bit.
        grey: (B,) bool. A grey image has the same noise in all channels, and all grey images of
            the batch share one plane, scaled by their sigma (as in the training of Real-ESRGAN).
        generator: on the CPU.

    Returns:
        (B, C, H, W), to be added to images in [0, 1].
    """
    height, width = image.shape[-2:]
    noise = torch.randn(image.shape, generator=generator).to(image)
    if bool(grey.any()):
        plane = torch.randn(1, 1, height, width, generator=generator).to(image)
        noise = torch.where(grey.to(image.device).view(-1, 1, 1, 1), plane, noise)
    return noise * _per_image(sigma, image) / 255


def _level_count(levels: Tensor) -> Tensor:
    """2^ceil(log2(n)) for each image, n the number of distinct 8 bit levels in it; (B,) float."""
    counts = [int(torch.bincount(one.flatten(), minlength=256).count_nonzero()) for one in levels]
    return torch.tensor([float(1 << (count - 1).bit_length()) for count in counts])


def _shot_noise(image: Tensor, generator: torch.Generator) -> Tensor:
    """Poisson counts minus their mean, in units of the image; (B, C, H, W) on the CPU."""
    levels = (image * 255).round().clamp(0, 255)
    peak = _level_count(levels.to(torch.uint8)).view(-1, 1, 1, 1)
    mean = levels / 255
    return torch.poisson(mean * peak, generator=generator) / peak - mean


def poisson_noise(image: Tensor, scale: Tensor, grey: Tensor, generator: torch.Generator) -> Tensor:
    """Signal-dependent noise for a batch.

    The counts have the mean image * peak, image rounded to 8 bit and peak the next power of two of
    the number of distinct levels in the image.

    Args:
        image: (B, 3, H, W) float in [0, 1], RGB.
        scale: (B,) factor on the noise.
        grey: (B,) bool: noise of the luma, the same in all channels.
        generator: on the CPU.

    Returns:
        (B, 3, H, W), to be added to the images.
    """
    on_cpu = image.detach().float().cpu()
    noise = _shot_noise(on_cpu, generator)
    if bool(grey.any()):
        weights = torch.tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1)
        plane = _shot_noise((on_cpu * weights).sum(1, keepdim=True), generator)
        noise = torch.where(grey.view(-1, 1, 1, 1), plane, noise)
    return noise.to(image) * _per_image(scale, image)
