"""What the degradations are drawn from: frozen dataclasses whose ranges are checked when built."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import BIRError
from .draws import Range, require_probability, require_range, require_weights
from .kernels import MixedKernels, require_cutoff, require_sizes
from .masks import MaskDegradation

ResizeMode = Literal["area", "bilinear", "bicubic"]
RESIZE_MODES: tuple[ResizeMode, ...] = ("area", "bilinear", "bicubic")
Step = Literal["blur", "resize", "noise", "jpeg"]
STEPS: tuple[Step, ...] = ("blur", "resize", "noise", "jpeg")


def _require_modes(modes: Sequence[str]) -> None:
    if not modes or any(mode not in RESIZE_MODES for mode in modes):
        raise BIRError(
            f"resize_modes should be one or more of {', '.join(RESIZE_MODES)}, but {tuple(modes)} "
            "came; change the preset."
        )


def _is_whole(scale: float | Range) -> bool:
    return not isinstance(scale, tuple) and float(scale).is_integer()


def _require_scale(scale: float) -> None:
    if not 1 <= scale < math.inf:
        raise BIRError(f"scale should be at least 1, but {scale:g} came; choose 1, 2 or 4.")


@dataclass(frozen=True, kw_only=True)
class FixedDegradation:
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
        _require_scale(self.scale)
        _require_modes(self.resize_modes)
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


@dataclass(frozen=True, kw_only=True)
class CodeFormerDegradation:
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


@dataclass(frozen=True, kw_only=True)
class RealESRGANDegradation:
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
        else:
            _require_scale(self.scale)
        if not self.restore_size and not _is_whole(self.scale):
            raise BIRError(
                f"scale should be a whole number where the result stays small, but {self.scale} "
                "came; give a whole number or set restore_size."
            )
        _require_modes(self.resize_modes)
        require_probability("final_sinc_probability", self.final_sinc_probability)
        require_sizes("final_sinc_sizes", self.final_sinc_sizes)
        require_cutoff("final_sinc_cutoff", self.final_sinc_cutoff)


Degradation = RealESRGANDegradation | CodeFormerDegradation | FixedDegradation | MaskDegradation


def keeps_size(preset: Degradation) -> bool:
    """Whether the result has the size of hq; a scale is then only that of a picture in between."""
    if isinstance(preset, RealESRGANDegradation):
        return preset.restore_size
    return isinstance(preset, CodeFormerDegradation)
