"""Blur, resize, noise and JPEG, once each."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import BIRError
from ..images import ResizeMode
from .degradation import (
    RESIZE_MODES,
    Degradation,
    Degraded,
    Randomness,
    blur,
    cut_to_scale,
    reduced,
    require_modes,
    require_scale,
    round_8bit,
    sometimes,
)
from .draws import Range, require_probability, require_range, uniform_per_sample
from .jpeg import codec_jpeg
from .kernels import MixedKernels
from .noise import gaussian_noise

Step = Literal["blur", "resize", "noise", "jpeg"]
STEPS: tuple[Step, ...] = ("blur", "resize", "noise", "jpeg")


@dataclass(frozen=True, kw_only=True)
class FixedDegradation(Degradation):
    """Blur, antialiased resize, noise and JPEG, once each.

    A blind degradation close to what old cameras and web pages do. Everything is drawn for each
    image of a batch; ranges of zero width make it a non-random degradation.

    Attributes:
        scale: how many times smaller the result is.
        blur: kernels, in pixels of the hq image.
        noise_sigma: of Gaussian colour noise, in steps of 8 bit.
        jpeg_quality: of the JPEG codec, in 1..101; the fraction is cut off.
        resize_modes: equally likely; not used with scale 1.
        blur_probability, noise_probability, jpeg_probability: of each of these steps.
        grey_probability: of the same noise in all channels.
        order: of the steps, each of them once.
    """

    scale: int
    blur: MixedKernels
    noise_sigma: Range
    jpeg_quality: Range
    resize_modes: tuple[ResizeMode, ...] = RESIZE_MODES
    blur_probability: float = 1.0
    noise_probability: float = 1.0
    jpeg_probability: float = 1.0
    grey_probability: float = 0.0
    order: tuple[Step, ...] = STEPS

    def __post_init__(self) -> None:
        require_scale(self.scale)
        require_modes(self.resize_modes)
        for step in ("blur", "noise", "jpeg", "grey"):
            name = f"{step}_probability"
            require_probability(name, getattr(self, name))
        if sorted(self.order) != sorted(STEPS):
            raise BIRError(
                f"order should name each of {', '.join(STEPS)} once, but {tuple(self.order)} came; "
                "change the preset."
            )
        require_range("noise_sigma", self.noise_sigma, 0, math.inf)
        require_range("jpeg_quality", self.jpeg_quality, 1, 101)

    def with_scale(self, scale: int) -> "FixedDegradation":
        """The same with a result that is so many times smaller."""
        return dataclasses.replace(self, scale=scale)

    def degrade(self, hq: Tensor, random: Randomness) -> Degraded:
        """All steps in their order; hq is cut to a multiple of the scale."""
        hq = image = cut_to_scale(hq, self.scale)
        for step in self.order:
            if step == "resize":
                image = reduced(image, self.scale, self.resize_modes, random)
                continue
            probability = getattr(self, f"{step}_probability")
            if probability == 0:
                continue
            if step == "blur":
                changed = blur(image, self.blur, random, "kernels")
            elif step == "noise":
                changed = self._noisy(image, random)
            else:
                changed = self._compressed(image, random)
            image = sometimes(changed, image, probability, random, step)
        # Where JPEG did not, the file of a picture rounds to 8 bits.
        return Degraded(round_8bit(image), hq, random.drawn)

    def _noisy(self, image: Tensor, random: Randomness) -> Tensor:
        sigma = uniform_per_sample(self.noise_sigma, len(image), random.generator)
        random.drawn["noise_sigma"] = sigma
        grey = torch.zeros(len(image), dtype=torch.bool)
        if self.grey_probability:
            grey = uniform_per_sample((0.0, 1.0), len(image), random.generator) < (
                self.grey_probability
            )
            random.drawn["noise_grey"] = grey
        return image + gaussian_noise(image, sigma, grey, random.noise)

    def _compressed(self, image: Tensor, random: Randomness) -> Tensor:
        quality = uniform_per_sample(self.jpeg_quality, len(image), random.generator)
        random.drawn["jpeg_quality"] = quality
        return codec_jpeg(image, quality)
