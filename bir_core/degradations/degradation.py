"""`degrade`: from high-quality images and a degradation to pairs; and what all degradations share.

All randomness comes from the generator that is passed in, drawn on the CPU in a fixed order: the
same generator state and the same input give the same result. A training on a GPU passes a second
one for the noise.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

import torch
from torch import Tensor

from ..errors import BIRError
from ..images import ResizeMode, resize
from .draws import choose_evenly, uniform_per_sample
from .kernels import MixedKernels, draw_kernel, filter2d, stack_kernels

# Those that are drawn from.
RESIZE_MODES: tuple[ResizeMode, ...] = ("area", "bilinear", "bicubic")
Draws = dict[str, object]


@dataclass(frozen=True)
class Degraded:
    """What `degrade` returns.

    Attributes:
        lq: (B, 3, H', W') float32 in [0, 1]; with a hole (B, 4, H, W), the fourth channel its mask.
        hq: (B, 3, H, W) float32 in [0, 1], the target that belongs to lq.
        draws: every value that was drawn, by the name of its step: a number, text or bool for the
            whole batch, a (B,) tensor, or a list with one entry for each image.
        sharpened_from: hq before the preset sharpened it; None where it did not.
        damage: (B, 1, H, W), 1 where damage of the surface can be seen in lq, else 0; None for
            presets that make none.
    """

    lq: Tensor
    hq: Tensor
    draws: Draws
    sharpened_from: Tensor | None = None
    damage: Tensor | None = None


@dataclass(frozen=True)
class Randomness:
    """What a degradation draws from.

    Attributes:
        generator: of all values, on the CPU.
        noise: of the noise alone, on the CPU or the device of the pictures.
        drawn: the values, see `Degraded`.
    """

    generator: torch.Generator
    noise: torch.Generator
    drawn: Draws = field(default_factory=dict)


class Degradation(ABC):
    """What makes low-quality images from high-quality ones: a frozen dataclass of the ranges that
    it draws from, which are checked when it is built."""

    @property
    def keeps_size(self) -> bool:
        """Whether the result has the size of hq, and a scale is only that of a picture in
        between."""
        return False

    @property
    def cuts_holes(self) -> bool:
        """Whether lq has a mask as its fourth channel."""
        return False

    @property
    def damages_surface(self) -> bool:
        """Whether it says where the surface is damaged."""
        return False

    @property
    def sharpens(self) -> bool:
        """Whether hq is sharpened."""
        return False

    @abstractmethod
    def with_scale(self, scale: int) -> "Degradation":
        """The same with another scale. Raises BIRError for one that it cannot have."""

    @abstractmethod
    def degrade(self, hq: Tensor, random: Randomness) -> Degraded:
        """(B, 3, H, W) float32 in [0, 1] to a pair, see `degrade`."""


def degrade(
    hq: Tensor,
    preset: Degradation,
    *,
    generator: torch.Generator,
    noise: torch.Generator | None = None,
    scale: int | None = None,
) -> Degraded:
    """Make low-quality images from high-quality ones.

    Args:
        hq: (B, 3, H, W) float in [0, 1], any device, any size from 1 pixel on.
        preset: what to do; see `get_preset`.
        generator: on the CPU; it is the only source of randomness.
        noise: another generator, for the noise alone, on the CPU or the device of hq (see
            `noise_generator_for`); None: `generator` draws the noise too.
        scale: replaces the preset's scale. Where the preset returns to the size of hq, it is the
            factor of the size in between.

    Returns:
        lq, hq and the drawn values. A test of inpainting resizes and cuts hq first. Where lq is
        smaller than hq, hq is cut at the right and the bottom to a multiple of the scale, so that
        the two cover the same part of the picture.

    Raises:
        BIRError: hq of another shape or type, smaller than the scale, a scale below 1, or any other
            than 1 for a preset that cuts holes.
    """
    if hq.ndim != 4 or hq.shape[1] != 3 or not hq.is_floating_point() or hq.numel() == 0:
        raise BIRError(
            "degrade expects float images of shape (B, 3, H, W), but "
            f"{tuple(hq.shape)} of {hq.dtype} came; convert the picture to RGB first."
        )
    if scale is not None:
        preset = preset.with_scale(scale)
    random = Randomness(generator, generator if noise is None else noise)
    return preset.degrade(hq.float(), random)


def require_modes(modes: Sequence[str]) -> None:
    """Raise BIRError unless there are modes and all are of `ResizeMode`."""
    known = get_args(ResizeMode)
    if not modes or any(mode not in known for mode in modes):
        raise BIRError(
            f"resize_modes should be one or more of {', '.join(known)}, but {tuple(modes)} "
            "came; change the preset."
        )


def require_scale(scale: float) -> None:
    """Raise BIRError unless a scale is at least 1."""
    if not 1 <= scale < math.inf:
        raise BIRError(f"scale should be at least 1, but {scale:g} came; choose 1, 2 or 4.")


def cut_to_scale(hq: Tensor, scale: int) -> Tensor:
    """(B, 3, H, W) cut at the right and the bottom to multiples of a scale. Raises BIRError if it
    has fewer pixels."""
    height, width = hq.shape[-2:]
    if min(height, width) < scale:
        raise BIRError(
            f"An image to be made {scale} times smaller should have sides of at least {scale} "
            f"pixels, but {width} x {height} came; use a larger picture."
        )
    return hq[..., : height - height % scale, : width - width % scale]


def blur(image: Tensor, kernels: MixedKernels, random: Randomness, name: str) -> Tensor:
    """Blur each image by a kernel of its own; `name` is that of the drawn values."""
    drawn = [draw_kernel(kernels, random.generator) for _ in image]
    random.drawn[name] = [values for _, values in drawn]
    return filter2d(image, stack_kernels([kernel for kernel, _ in drawn]))


def round_8bit(image: Tensor) -> Tensor:
    """What a file of 8 bits keeps of an image."""
    return (image.clamp(0, 1) * 255).round() / 255


def reduced(image: Tensor, scale: int, modes: Sequence[ResizeMode], random: Randomness) -> Tensor:
    """Each image made `scale` times smaller in a mode of its own; nothing is drawn for 1."""
    if scale == 1:
        return image
    height, width = (side // scale for side in image.shape[-2:])
    drawn = [choose_evenly(modes, random.generator) for _ in image]
    random.drawn["resize_mode"] = drawn
    return torch.cat(
        [resize(one[None], height, width, mode) for one, mode in zip(image, drawn, strict=True)]
    )


def sometimes(
    changed: Tensor, image: Tensor, probability: float, random: Randomness, name: str
) -> Tensor:
    """`changed` for a share of the images. A step that always happens draws nothing."""
    if probability == 1:
        return changed
    happens = uniform_per_sample((0.0, 1.0), len(image), random.generator) < probability
    random.drawn[name] = happens
    return torch.where(happens.to(image.device).view(-1, 1, 1, 1), changed, image)
