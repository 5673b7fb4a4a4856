"""The second-order degradation of Real-ESRGAN."""

import dataclasses
import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from ..errors import BIRError
from ..images import ResizeMode
from .degradation import (
    RESIZE_MODES,
    Degradation,
    Degraded,
    Randomness,
    blur,
    cut_to_scale,
    require_modes,
    require_scale,
    round_8bit,
)
from .draws import (
    Range,
    chance,
    choose,
    choose_evenly,
    require_probability,
    require_range,
    require_weights,
    uniform,
    uniform_per_sample,
)
from .jpeg import diff_jpeg
from .kernels import (
    MixedKernels,
    draw_final_sinc,
    filter2d,
    require_cutoff,
    require_sizes,
    sharpen,
    stack_kernels,
)
from .noise import gaussian_noise, poisson_noise


@dataclass(frozen=True, kw_only=True)
class RealESRGANOrder:
    """One of the two orders of the Real-ESRGAN degradation: blur, resize, noise, JPEG.

    Attributes:
        blur_probability: of the blur, for the whole batch.
        kernels: what each image's blur kernel is drawn from.
        resize_weights: of enlarging, reducing and keeping the size.
        enlarge, reduce: ranges of the factor.
        gaussian_probability: of Gaussian noise; otherwise the noise is Poisson.
        gaussian_sigma: in steps of 8 bit.
        poisson_scale: factor on the Poisson noise.
        grey_probability: of the same noise in all channels, for each image.
        jpeg_quality: of each image, a real number above 0 and below 100.
    """

    blur_probability: float
    kernels: MixedKernels
    resize_weights: tuple[float, float, float]
    enlarge: Range
    reduce: Range
    gaussian_probability: float
    gaussian_sigma: Range
    poisson_scale: Range
    grey_probability: float
    jpeg_quality: Range

    def __post_init__(self) -> None:
        for name in ("blur_probability", "gaussian_probability", "grey_probability"):
            require_probability(name, getattr(self, name))
        require_weights("resize_weights", self.resize_weights, 3)
        require_range("enlarge", self.enlarge, 1, math.inf)
        require_range("reduce", self.reduce, 0.01, 1)
        require_range("gaussian_sigma", self.gaussian_sigma, 0, math.inf)
        require_range("poisson_scale", self.poisson_scale, 0, math.inf)
        require_range("jpeg_quality", self.jpeg_quality, 1, 99.9)

    def sometimes_blurred(self, image: Tensor, random: Randomness, name: str) -> Tensor:
        """Blur all images of the batch or none; `name` begins the names of all drawn values."""
        happens = chance(self.blur_probability, random.generator)
        random.drawn[f"{name}_blur"] = happens
        return blur(image, self.kernels, random, f"{name}_kernels") if happens else image

    def resize_factor(self, random: Randomness, name: str) -> float:
        """Draw the factor of the resize."""
        direction = choose(("enlarge", "reduce", "keep"), self.resize_weights, random.generator)
        factor = 1.0
        if direction != "keep":
            bounds = self.enlarge if direction == "enlarge" else self.reduce
            factor = uniform(bounds, random.generator)
        random.drawn[f"{name}_resize_direction"] = direction
        random.drawn[f"{name}_resize_factor"] = factor
        return factor

    def noisy(self, image: Tensor, random: Randomness, name: str) -> Tensor:
        """Add Gaussian or Poisson noise."""
        generator = random.generator
        gaussian = chance(self.gaussian_probability, generator)
        bounds = self.gaussian_sigma if gaussian else self.poisson_scale
        strength = uniform_per_sample(bounds, len(image), generator)
        grey = uniform_per_sample((0.0, 1.0), len(image), generator) < self.grey_probability
        random.drawn[f"{name}_noise_kind"] = "gaussian" if gaussian else "poisson"
        random.drawn[f"{name}_noise_strength"] = strength
        random.drawn[f"{name}_noise_grey"] = grey
        make_noise = gaussian_noise if gaussian else poisson_noise
        return (image + make_noise(image, strength, grey, random.noise)).clamp(0, 1)

    def compressed(self, image: Tensor, random: Randomness, name: str) -> Tensor:
        """What JPEG leaves."""
        quality = uniform_per_sample(self.jpeg_quality, len(image), random.generator)
        random.drawn[f"{name}_jpeg_quality"] = quality
        return diff_jpeg(image.clamp(0, 1), quality)


@dataclass(frozen=True, kw_only=True)
class RealESRGANDegradation(Degradation):
    """The second-order degradation of Wang et al., "Real-ESRGAN" (ICCVW 2021), figure 2.

    As in its training code: resize factors, resize modes and the kind of noise are drawn once for
    the batch; kernels, noise levels, grey or colour, and JPEG quality for each image.

    Attributes:
        scale: how many times smaller the result is; or, only with `restore_size`, a range from
            which a real number is drawn for each batch.
        first, second: the two orders. The second one's resize starts from the size of hq / scale.
        resize_modes: equally likely at every resize.
        final_sinc_probability: of a sinc filter after the last resize, for each image.
        final_sinc_sizes: sides of that filter in pixels, odd, equally likely.
        final_sinc_cutoff: in radians per pixel.
        sharpen_hq: sharpen hq first; the sharpened image is then also the target.
        restore_size: enlarge the result (bicubic) to the size of hq.
    """

    scale: float | Range
    first: RealESRGANOrder
    second: RealESRGANOrder
    resize_modes: tuple[ResizeMode, ...] = RESIZE_MODES
    final_sinc_probability: float = 0.8
    final_sinc_sizes: tuple[int, ...] = tuple(range(7, 22, 2))
    final_sinc_cutoff: Range = (math.pi / 3, math.pi)
    sharpen_hq: bool = False
    restore_size: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.scale, tuple):
            require_range("scale", self.scale, 1, math.inf)
            whole = False
        else:
            require_scale(self.scale)
            whole = float(self.scale).is_integer()
        if not self.restore_size and not whole:
            raise BIRError(
                f"scale should be a whole number where the result stays small, but {self.scale} "
                "came; give a whole number or set restore_size."
            )
        require_modes(self.resize_modes)
        require_probability("final_sinc_probability", self.final_sinc_probability)
        require_sizes("final_sinc_sizes", self.final_sinc_sizes)
        require_cutoff("final_sinc_cutoff", self.final_sinc_cutoff)

    @property
    def keeps_size(self) -> bool:
        """Whether it enlarges what it made smaller."""
        return self.restore_size

    @property
    def sharpens(self) -> bool:
        """Whether hq is sharpened."""
        return self.sharpen_hq

    def with_scale(self, scale: int) -> "RealESRGANDegradation":
        """The same with a result, or a picture in between, that is so many times smaller."""
        return dataclasses.replace(self, scale=scale)

    def degrade(self, hq: Tensor, random: Randomness) -> Degraded:
        """Both orders, after hq is cut to a multiple of the scale and sharpened."""
        if not isinstance(self.scale, tuple) and not self.restore_size:
            hq = cut_to_scale(hq, int(self.scale))
        before = hq if self.sharpen_hq else None
        if self.sharpen_hq:
            hq = sharpen(hq)
        return Degraded(self._degraded(hq, random), hq, random.drawn, before)

    def _degraded(self, hq: Tensor, random: Randomness) -> Tensor:
        height, width = hq.shape[-2:]
        scale = self.scale
        if isinstance(scale, tuple):
            scale = uniform(scale, random.generator)
        random.drawn["scale"] = scale

        order = self.first
        image = order.sometimes_blurred(hq, random, "first")
        factor = order.resize_factor(random, "first")
        image = _resize_by(image, factor, self._resize_mode(random, "first"))
        image = order.noisy(image, random, "first")
        image = order.compressed(image, random, "first")

        order = self.second
        image = order.sometimes_blurred(image, random, "second")
        factor = order.resize_factor(random, "second")
        size = max(1, int(height / scale * factor)), max(1, int(width / scale * factor))
        image = F.interpolate(image, size, mode=self._resize_mode(random, "second"))
        image = order.noisy(image, random, "second")

        size = max(1, int(height // scale)), max(1, int(width // scale))
        resize_first = chance(0.5, random.generator)
        random.drawn["final_resize_before_jpeg"] = resize_first
        if resize_first:
            image = order.compressed(self._resized_by_sinc(image, size, random), random, "second")
        else:
            image = self._resized_by_sinc(order.compressed(image, random, "second"), size, random)
        if self.restore_size:
            image = F.interpolate(image, (height, width), mode="bicubic")
        return round_8bit(image)

    def _resize_mode(self, random: Randomness, name: str) -> ResizeMode:
        mode = choose_evenly(self.resize_modes, random.generator)
        random.drawn[f"{name}_resize_mode"] = mode
        return mode

    def _resized_by_sinc(self, image: Tensor, size: tuple[int, int], random: Randomness) -> Tensor:
        """The last resize, and the sinc filter after it."""
        image = F.interpolate(image, size, mode=self._resize_mode(random, "final"))
        drawn = [
            draw_final_sinc(
                self.final_sinc_probability,
                self.final_sinc_sizes,
                self.final_sinc_cutoff,
                random.generator,
            )
            for _ in image
        ]
        random.drawn["final_kernels"] = [values for _, values in drawn]
        return filter2d(image, stack_kernels([kernel for kernel, _ in drawn]))


def _resize_by(image: Tensor, factor: float, mode: ResizeMode) -> Tensor:
    """Resize by a factor without antialias; no side becomes smaller than one pixel."""
    height, width = (int(side * factor) for side in image.shape[-2:])
    if min(height, width) < 1:
        return F.interpolate(image, (max(1, height), max(1, width)), mode=mode)
    return F.interpolate(image, scale_factor=factor, mode=mode)
