"""Damage that changes over a picture: blur, noise and JPEG."""

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..images import ResizeMode
from .degradation import (
    RESIZE_MODES,
    Degradation,
    Degraded,
    Randomness,
    cut_to_scale,
    reduced,
    require_modes,
    require_scale,
    round_8bit,
    sometimes,
)
from .draws import Range, require_probability, require_range, uniform_per_sample
from .fields import draw_waves, smooth_fields
from .jpeg import codec_jpeg
from .kernels import blur_gaussian
from .noise import gaussian_noise

# Of blur and of JPEG, between which is blended or chosen.
LEVELS = 7
JPEG_BLOCK = 16  # pixels that share their chroma's blocks


@dataclass(frozen=True, kw_only=True)
class VaryingDegradation(Degradation):
    """Blur, reduction, noise and JPEG, once each, whose strengths change smoothly over a picture.

    Each strength is low + (high - low) u(p) with a field u of its own (see `fields`), drawn for
    each image of a batch: what of a range a picture has depends on its waves.

    Attributes:
        scale: how many times smaller the result is.
        blur_sigma: of a Gaussian blur, in pixels of the hq image, see `varying_blur`.
        noise_sigma: of Gaussian noise, in steps of 8 bit.
        jpeg_quality: of the JPEG codec, in 1..100, see `varying_jpeg`.
        blur_probability, noise_probability, jpeg_probability: of each of these steps.
        grey_probability: of the same noise in all channels.
        cycles: how many waves of a field fit into the longer side.
        resize_modes: equally likely; not used with scale 1.
    """

    scale: int = 1
    blur_sigma: Range = (0.0, 3.0)
    noise_sigma: Range = (0.0, 40.0)
    jpeg_quality: Range = (15.0, 95.0)
    blur_probability: float = 0.8
    noise_probability: float = 0.8
    jpeg_probability: float = 0.8
    grey_probability: float = 0.4
    cycles: Range = (0.2, 1.5)
    resize_modes: tuple[ResizeMode, ...] = RESIZE_MODES

    def __post_init__(self) -> None:
        require_scale(self.scale)
        require_modes(self.resize_modes)
        for step in ("blur", "noise", "jpeg", "grey"):
            require_probability(f"{step}_probability", getattr(self, f"{step}_probability"))
        require_range("blur_sigma", self.blur_sigma, 0, math.inf)
        require_range("noise_sigma", self.noise_sigma, 0, math.inf)
        require_range("jpeg_quality", self.jpeg_quality, 1, 100)
        require_range("cycles", self.cycles, 0, math.inf)

    def with_scale(self, scale: int) -> "VaryingDegradation":
        """The same with a result that is so many times smaller."""
        return dataclasses.replace(self, scale=scale)

    def degrade(self, hq: Tensor, random: Randomness) -> Degraded:
        """All steps in this order; hq is cut to a multiple of the scale."""
        hq = image = cut_to_scale(hq, self.scale)
        sigma = self._strength("blur", self.blur_sigma, image, random)
        blurred = varying_blur(image, sigma, self.blur_sigma)
        image = sometimes(blurred, image, self.blur_probability, random, "blur")
        image = reduced(image, self.scale, self.resize_modes, random)
        sigma = self._strength("noise", self.noise_sigma, image, random)
        grey = uniform_per_sample((0.0, 1.0), len(image), random.generator) < self.grey_probability
        random.drawn["noise_grey"] = grey
        noise = gaussian_noise(image, torch.ones(len(image)), grey, random.noise)
        noisy = image + sigma * noise
        image = sometimes(noisy, image, self.noise_probability, random, "noise")
        quality = self._strength("jpeg", self.jpeg_quality, image, random)
        compressed = varying_jpeg(image, quality, self.jpeg_quality)
        image = sometimes(compressed, image, self.jpeg_probability, random, "jpeg")
        return Degraded(round_8bit(image), hq, random.drawn)

    def _strength(self, step: str, bounds: Range, image: Tensor, random: Randomness) -> Tensor:
        """(B, 1, H, W): of a step at each pixel; its waves are drawn."""
        waves = draw_waves(self.cycles, len(image), random.generator)
        random.drawn[f"{step}_waves"] = waves
        low, high = bounds
        return low + (high - low) * smooth_fields(waves.to(image), *image.shape[-2:])


def varying_blur(image: Tensor, sigma: Tensor, bounds: Range) -> Tensor:
    """Blur by a Gaussian whose width changes over the picture.

    The picture is blurred by `LEVELS` widths; each pixel is a blend of the two next to its own,
    linear in the variance: its kernel is a mixture of two Gaussians with the variance sigma^2.

    Args:
        image: (B, C, H, W).
        sigma: (B, 1, H, W) in pixels, within the bounds.

    Returns:
        (B, C, H, W).
    """
    levels = _levels(bounds)
    variances = [level**2 for level in levels]
    result = torch.zeros_like(image)
    for index, level in enumerate(levels):
        weight = _hat(sigma.square(), variances, index)
        size = 2 * math.ceil(4 * level) + 1
        blurred = blur_gaussian(image, size, level) if level > 0 else image
        result += weight * blurred
    return result


def varying_jpeg(image: Tensor, quality: Tensor, bounds: Range) -> Tensor:
    """JPEG whose quality changes over the picture, as where parts of others were pasted.

    The picture goes through the codec with `LEVELS` qualities; each block of 16 x 16 pixels comes
    from the quality that is nearest to that in its middle.

    Args:
        image: (B, 3, H, W) in [0, 1].
        quality: (B, 1, H, W), within the bounds.

    Returns:
        (B, 3, H, W) in [0, 1], multiples of 1/255.
    """
    height, width = image.shape[-2:]
    rows, columns = (_block_centres(side, image.device) for side in (height, width))
    wanted = quality[..., rows, :][..., columns]
    levels = _levels(bounds)
    distance = torch.stack([(wanted - level).abs() for level in levels])
    nearest = distance.argmin(0).repeat_interleave(JPEG_BLOCK, -2)
    nearest = nearest.repeat_interleave(JPEG_BLOCK, -1)[..., :height, :width]
    result = image
    for index, level in enumerate(levels):
        compressed = codec_jpeg(image, torch.full((len(image),), level))
        result = torch.where(nearest == index, compressed, result)
    return result


def _levels(bounds: Range) -> list[float]:
    """Evenly from low to high; a single one where both are equal."""
    low, high = bounds
    if low == high:
        return [low]
    return [low + (high - low) * index / (LEVELS - 1) for index in range(LEVELS)]


def _hat(values: Tensor, places: list[float], index: int) -> Tensor:
    """Share of one of several places in the linear interpolation between them at `values`."""
    weight = torch.ones_like(values)
    here = places[index]
    if index > 0:
        weight = (values - places[index - 1]) / (here - places[index - 1])
    if index < len(places) - 1:
        weight = weight.minimum((places[index + 1] - values) / (places[index + 1] - here))
    return weight.clamp(0, 1)


def _block_centres(side: int, device: torch.device) -> Tensor:
    """The pixel in the middle of each block of a side."""
    starts = torch.arange(0, side, JPEG_BLOCK, device=device)
    return (starts + JPEG_BLOCK // 2).clamp(max=side - 1)
