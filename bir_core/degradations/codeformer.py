"""The degradation of CodeFormer, which returns to the size of the picture."""

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .degradation import Degradation, Degraded, Randomness, blur
from .draws import Range, require_range, uniform_per_sample
from .jpeg import codec_jpeg
from .kernels import MixedKernels
from .noise import gaussian_noise


@dataclass(frozen=True, kw_only=True)
class CodeFormerDegradation(Degradation):
    """One order of blur, downscaling, noise and JPEG, then back to the input's size.

    Zhou et al., "Towards Robust Blind Face Restoration with Codebook Lookup Transformer" (NeurIPS
    2022), section 4; DiffBIR v1 (faces) and v2 use it with other ranges. Everything is drawn for
    each image of a batch.

    Attributes:
        blur: kernels, in pixels of the hq image.
        downscale: factor of the bilinear resize, without antialias; below 1 it enlarges.
        noise_sigma: of Gaussian colour noise, in steps of 8 bit.
        jpeg_quality: of the JPEG codec, in 1..101; the fraction is cut off.
    """

    blur: MixedKernels
    downscale: Range
    noise_sigma: Range
    jpeg_quality: Range

    def __post_init__(self) -> None:
        require_range("downscale", self.downscale, 0.01, math.inf)
        require_range("noise_sigma", self.noise_sigma, 0, math.inf)
        require_range("jpeg_quality", self.jpeg_quality, 1, 101)

    @property
    def keeps_size(self) -> bool:
        """True: it enlarges what it made smaller."""
        return True

    def with_scale(self, scale: int) -> "CodeFormerDegradation":
        """The same with a picture in between that is so many times smaller."""
        return dataclasses.replace(self, downscale=(float(scale), float(scale)))

    def degrade(self, hq: Tensor, random: Randomness) -> Degraded:
        """All steps for one image after the other, since every one has another size in between."""
        height, width = hq.shape[-2:]
        blurred = blur(hq, self.blur, random, "kernels")
        downscale, sigma, quality = (
            uniform_per_sample(bounds, len(hq), random.generator)
            for bounds in (self.downscale, self.noise_sigma, self.jpeg_quality)
        )
        random.drawn["downscale"] = downscale
        random.drawn["noise_sigma"], random.drawn["jpeg_quality"] = sigma, quality
        colour = torch.zeros(1, dtype=torch.bool)
        restored = []
        for index, factor in enumerate(downscale.tolist()):
            size = max(1, int(height // factor)), max(1, int(width // factor))
            image = F.interpolate(blurred[index : index + 1], size, mode="bilinear")
            image = image + gaussian_noise(image, sigma[index : index + 1], colour, random.noise)
            image = codec_jpeg(image, quality[index : index + 1])
            restored.append(F.interpolate(image, (height, width), mode="bilinear"))
        return Degraded(torch.cat(restored), hq, random.drawn)
