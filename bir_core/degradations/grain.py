"""Grain of film: noise that depends on the picture and whose pixels belong together."""

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..images import luma
from .degradation import Degradation, Degraded, Randomness, cut_to_scale
from .draws import Range, require_probability, require_range, uniform_per_sample
from .fixed import FixedDegradation
from .kernels import bell_kernel, filter2d, stack_kernels


@dataclass(frozen=True, kw_only=True)
class GrainDegradation(Degradation):
    """Film with its grain, which is then scanned.

    See `film_grain` for the formula. Everything is drawn for each image of a batch.

    Attributes:
        strength: standard deviation of the grain in middle grey, in steps of 8 bit.
        size: sigma of the Gaussian that a grain is, in pixels of the hq image.
        grey_probability: of the same grain in all channels, as a black-and-white film has it.
        scan: blur, reduction, noise and JPEG of the scan.
    """

    strength: Range = (4.0, 30.0)
    size: Range = (0.3, 1.5)
    grey_probability: float = 0.5
    scan: FixedDegradation

    def __post_init__(self) -> None:
        require_range("strength", self.strength, 0, math.inf)
        require_range("size", self.size, 0.01, math.inf)
        require_probability("grey_probability", self.grey_probability)

    @property
    def scale(self) -> int:
        """How many times smaller the scan is."""
        return self.scan.scale

    def with_scale(self, scale: int) -> "GrainDegradation":
        """The same with a scan that is so many times smaller."""
        return dataclasses.replace(self, scan=self.scan.with_scale(scale))

    def degrade(self, hq: Tensor, random: Randomness) -> Degraded:
        """Grain, then the scan; hq is cut to a multiple of the scale."""
        hq = cut_to_scale(hq, self.scale)
        strength, size = (
            uniform_per_sample(bounds, len(hq), random.generator)
            for bounds in (self.strength, self.size)
        )
        grey = uniform_per_sample((0.0, 1.0), len(hq), random.generator) < self.grey_probability
        random.drawn["grain_strength"], random.drawn["grain_size"] = strength, size
        random.drawn["grain_grey"] = grey
        grain = film_grain(hq, strength, size, grey, random.noise)
        scanned = self.scan.degrade((hq + grain).clamp(0, 1), random)
        return Degraded(scanned.lq, hq, random.drawn)


def film_grain(
    image: Tensor, strength: Tensor, size: Tensor, grey: Tensor, generator: torch.Generator
) -> Tensor:
    """The grain of a batch:

    n(p) = strength / 255 * 2 sqrt(v(p) (1 - v(p))) * (k * e)(p) / |k|

    with white normal noise e, a Gaussian k of the size, |k|^2 the sum of its squares, and the value
    v of the picture. Grains that are developed independently of each other, each with the
    probability v, cover a share whose variance goes as v (1 - v), the binomial one: none in black
    and white, most in middle grey. The last factor has the variance 1 and the correlation
    exp(-d^2 / (4 size^2)) at the distance d.

    Args:
        image: (B, 3, H, W) in [0, 1].
        strength: (B,), in steps of 8 bit, the standard deviation where v is 1/2.
        size: (B,), sigma of k in pixels, above 0.
        grey: (B,) bool: one e for all channels, and the luma for v.
        generator: on the CPU or on the image's device.

    Returns:
        (B, 3, H, W), to be added.
    """
    kernels = [bell_kernel(_width(each), each, each) for each in size.tolist()]
    stacked = stack_kernels([kernel / kernel.norm() for kernel in kernels])
    margin = stacked.shape[-1] // 2
    height, width = (side + 2 * margin for side in image.shape[-2:])
    shape = (*image.shape[:2], height, width)
    noise = torch.randn(shape, generator=generator, device=generator.device).to(image)
    is_grey = grey.to(image.device).view(-1, 1, 1, 1)
    noise = torch.where(is_grey, noise[:, :1], noise)
    # Within the margin the mirrored border would show.
    inside = (slice(margin, height - margin), slice(margin, width - margin))
    correlated = filter2d(noise, stacked)[(..., *inside)]
    value = torch.where(is_grey, luma(image), image)
    deviation = 2 * (value * (1 - value)).clamp(min=0).sqrt()
    return strength.to(image).view(-1, 1, 1, 1) / 255 * deviation * correlated


def _width(sigma: float) -> int:
    return 2 * math.ceil(3 * sigma) + 1
