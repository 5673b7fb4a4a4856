"""Degradation chains: parameters in frozen dataclasses, and `degrade`, which applies them.

All randomness comes from the generator that is passed in, drawn on the CPU in a fixed order: the
same generator state and the same input give the same result.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import BIRError
from ..images import resize
from .draws import (
    Range,
    chance,
    choose,
    require_probability,
    require_range,
    uniform,
    uniform_per_sample,
)
from .jpeg import codec_jpeg
from .kernels import (
    bell_kernel,
    filter2d,
)
from .noise import gaussian_noise

ResizeMode = Literal["area", "bilinear", "bicubic"]
RESIZE_MODES: tuple[ResizeMode, ...] = ("area", "bilinear", "bicubic")
Draws = dict[str, object]


def _require_modes(modes: Sequence[str]) -> None:
    if not modes or any(mode not in RESIZE_MODES for mode in modes):
        raise BIRError(
            f"resize_modes should be one or more of {', '.join(RESIZE_MODES)}, but {tuple(modes)} "
            "came; change the preset."
        )


def _require_scale(scale: int) -> None:
    if scale < 1:
        raise BIRError(f"scale should be at least 1, but {scale} came; choose 1, 2 or 4.")


def _require_jpeg_quality(quality: Range, highest: float) -> None:
    require_range("jpeg_quality", quality, 1, highest)


@dataclass(frozen=True, kw_only=True)
class BlurRanges:
    """Gaussian kernels, isotropic or anisotropic, drawn for each image.

    Attributes:
        size: side in pixels, odd.
        anisotropic_probability: share of kernels with two sigmas and a rotation in [-pi, pi].
        sigma: width of each axis in pixels of the image that is blurred.
    """

    size: int
    anisotropic_probability: float
    sigma: Range

    def __post_init__(self) -> None:
        if self.size < 1 or self.size % 2 == 0:
            raise BIRError(
                f"The size of a blur kernel should be odd, but {self.size} came; change the preset."
            )
        require_probability("anisotropic_probability", self.anisotropic_probability)
        require_range("sigma", self.sigma, 0.01, math.inf)


@dataclass(frozen=True, kw_only=True)
class FixedDegradation:
    """One order of blur, antialiased resize, noise and JPEG, always in this order.

    A light blind degradation close to what cameras and web pages do. Everything is drawn for each
    image of a batch; ranges of zero width make it a non-random degradation.

    Attributes:
        scale: how many times smaller the result is.
        blur: at the size of the hq image.
        resize_modes: equally likely; not used with scale 1.
        noise_sigma: of Gaussian colour noise, in steps of 8 bit.
        jpeg_quality: in 1..100; the codec cuts off the fraction.
    """

    scale: int
    blur: BlurRanges
    resize_modes: tuple[ResizeMode, ...] = RESIZE_MODES
    noise_sigma: Range = (1.0, 15.0)
    jpeg_quality: Range = (40.0, 96.0)

    def __post_init__(self) -> None:
        _require_scale(self.scale)
        _require_modes(self.resize_modes)
        require_range("noise_sigma", self.noise_sigma, 0, math.inf)
        _require_jpeg_quality(self.jpeg_quality, 101)


@dataclass(frozen=True)
class Degraded:
    """What `degrade` returns.

    Attributes:
        lq: (B, 3, H', W') float32 in [0, 1], multiples of 1/255.
        hq: (B, 3, H, W) float32 in [0, 1], the target that belongs to lq.
        draws: every value that was drawn, by the name of its step: a number, text or bool for the
            whole batch, a (B,) tensor, or a list with one entry for each image.
    """

    lq: Tensor
    hq: Tensor
    draws: Draws


def _round_8bit(image: Tensor) -> Tensor:
    return (image.clamp(0, 1) * 255).round() / 255


def _blur(image: Tensor, ranges: BlurRanges, generator: torch.Generator, draws: Draws) -> Tensor:
    kernels, drawn = [], []
    for _ in range(image.shape[0]):
        sigma_x = sigma_y = uniform(ranges.sigma, generator)
        theta = 0.0
        anisotropic = chance(ranges.anisotropic_probability, generator)
        if anisotropic:
            sigma_y = uniform(ranges.sigma, generator)
            theta = uniform((-math.pi, math.pi), generator)
        kernels.append(bell_kernel(ranges.size, sigma_x, sigma_y, theta))
        kind = "gaussian_anisotropic" if anisotropic else "gaussian_isotropic"
        drawn.append({"kind": kind, "sigma_x": sigma_x, "sigma_y": sigma_y, "theta": theta})
    draws["blur"] = drawn
    return filter2d(image, torch.stack(kernels))


def _degrade_fixed(
    hq: Tensor, preset: FixedDegradation, generator: torch.Generator, draws: Draws
) -> Tensor:
    batch, _, height, width = hq.shape
    image = _blur(hq, preset.blur, generator, draws)
    if preset.scale > 1:
        modes = [
            choose(preset.resize_modes, [1.0] * len(preset.resize_modes), generator)
            for _ in range(batch)
        ]
        draws["resize_mode"] = modes
        smaller = (height // preset.scale, width // preset.scale)
        image = torch.cat(
            [resize(one[None], *smaller, mode) for one, mode in zip(image, modes, strict=True)]
        )
    draws["noise_sigma"] = sigma = uniform_per_sample(preset.noise_sigma, batch, generator)
    colour = torch.zeros(batch, dtype=torch.bool)
    image = image + gaussian_noise(image, sigma, colour, generator)
    draws["jpeg_quality"] = quality = uniform_per_sample(preset.jpeg_quality, batch, generator)
    return codec_jpeg(image, quality)


def degrade(
    hq: Tensor,
    preset: FixedDegradation,
    *,
    generator: torch.Generator,
    scale: int | None = None,
) -> Degraded:
    """Make low-quality images from high-quality ones.

    Args:
        hq: (B, 3, H, W) float in [0, 1], any device.
        preset: what to do; see `get_preset`.
        generator: on the CPU; it is the only source of randomness.
        scale: replaces the preset's scale.

    Returns:
        lq, hq and the drawn values. Where lq is smaller than hq, hq is cut at the right and the
        bottom to a multiple of the scale, so that the two cover the same part of the picture.

    Raises:
        BIRError: hq of another shape or type, smaller than the scale, or a scale below 1.
    """
    if hq.ndim != 4 or hq.shape[1] != 3 or not hq.is_floating_point():
        raise BIRError(
            "degrade expects float images of shape (B, 3, H, W), but "
            f"{tuple(hq.shape)} of {hq.dtype} came; convert the picture to RGB first."
        )
    if scale is not None:
        preset = dataclasses.replace(preset, scale=scale)
    hq = hq.float()
    draws: Draws = {}
    height, width = hq.shape[-2:]
    if min(height, width) < preset.scale:
        raise BIRError(
            f"An image to be made {preset.scale} times smaller should have sides of at least "
            f"{preset.scale} pixels, but {width} x {height} came; use a larger picture."
        )
    hq = hq[..., : height - height % preset.scale, : width - width % preset.scale]
    lq = _degrade_fixed(hq, preset, generator, draws)
    return Degraded(lq=lq, hq=hq, draws=draws)
