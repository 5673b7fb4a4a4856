"""Gaussian and Poisson noise of a batch, colour or grey (Wang et al., "Real-ESRGAN", section 3.2).

Noise is drawn where its generator lives. One on the CPU gives the same noise to pictures on every
device; one on the device of the pictures saves the way from the CPU.
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
        generator: on the CPU or on the image's device.

    Returns:
        (B, C, H, W), to be added to images in [0, 1].
    """
    height, width = image.shape[-2:]
    source = generator.device
    noise = torch.randn(image.shape, generator=generator, device=source).to(image)
    if bool(grey.any()):
        plane = torch.randn(1, 1, height, width, generator=generator, device=source).to(image)
        noise = torch.where(grey.to(image.device).view(-1, 1, 1, 1), plane, noise)
    return noise * _per_image(sigma, image) / 255


def _peak(levels: Tensor) -> Tensor:
    """2^ceil(log2(n)) for each image, n the number of distinct levels of 0..255 in it.

    (B, C, H, W) -> (B, 1, 1, 1), both float on one device, which nothing has to wait for.
    """
    occurs = torch.zeros(len(levels), 256, device=levels.device)
    for row, one in zip(occurs, levels, strict=True):  # whole batches of indices leave the cache
        row.index_fill_(0, one.flatten().long(), 1.0)
    count = occurs.sum(1, keepdim=True)
    powers = torch.tensor([float(1 << bits) for bits in range(9)], device=levels.device)
    return powers[(count > powers).sum(1)].view(-1, 1, 1, 1)


def _shot_noise(image: Tensor, generator: torch.Generator) -> Tensor:
    """Poisson counts minus their mean, in units of the image, which is (B, C, H, W) and on the
    generator's device."""
    levels = (image * 255).round().clamp(0, 255)
    peak = _peak(levels)
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
        generator: on the CPU or on the image's device.

    Returns:
        (B, 3, H, W), to be added to the images.
    """
    source = generator.device
    seen = image.detach().float().to(source)
    noise = _shot_noise(seen, generator)
    if bool(grey.any()):
        weights = torch.tensor([0.2989, 0.587, 0.114], device=source).view(1, 3, 1, 1)
        plane = _shot_noise((seen * weights).sum(1, keepdim=True), generator)
        noise = torch.where(grey.to(source).view(-1, 1, 1, 1), plane, noise)
    return noise.to(image) * _per_image(scale, image)
