"""Blur kernels, filtering with one kernel per image, and sharpening.

Formulas: Wang et al., "Real-ESRGAN" (ICCVW 2021), section 3; generalised Gaussian and plateau
kernels after Liu et al., "Estimating generalized Gaussian blur kernels for out-of-focus image
deblurring" (TCSVT 2020). With the grid p in pixels from the centre and the covariance
S = R diag(sigma_x^2, sigma_y^2) R^T, all of them are functions of q = p^T S^-1 p.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import BIRError
from ..images import mirrored_indices
from .defocus import disc_kernel
from .draws import (
    Range,
    chance,
    choose,
    choose_evenly,
    require_probability,
    require_range,
    require_weights,
    uniform,
)
from .motion import motion_kernel

KernelShape = Literal["gaussian", "generalized", "plateau"]
KernelDraw = dict[str, float | str | list[float]]
# Of the direction of a shaking hand, over the whole path.
SHAKE_STEPS = 16
# The order of MixedKernels.weights.
KERNEL_KINDS: tuple[tuple[KernelShape, bool], ...] = (
    ("gaussian", True),
    ("gaussian", False),
    ("generalized", True),
    ("generalized", False),
    ("plateau", True),
    ("plateau", False),
)


def require_odd(size: int) -> None:
    """Raise BIRError unless a kernel size is odd and at least 1."""
    if size < 1 or size % 2 == 0:
        raise BIRError(
            f"A kernel size should be odd and at least 1, but {size} came; choose an odd size."
        )


def require_sizes(name: str, sizes: tuple[int, ...]) -> None:
    """Raise BIRError unless there is at least one kernel size and all are odd."""
    if not sizes:
        raise BIRError(f"{name} should have at least one kernel size; add an odd number.")
    for size in sizes:
        require_odd(size)


def require_cutoff(name: str, bounds: Range) -> None:
    """Raise BIRError unless a range of sinc cut-offs lies above 0 and up to pi."""
    require_range(name, bounds, 0.01, math.pi)


def _grid(size: int) -> tuple[Tensor, Tensor]:
    """x (columns) and y (rows) of each kernel element in pixels from the centre, float64."""
    axis = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


def bell_kernel(
    size: int,
    sigma_x: float,
    sigma_y: float,
    theta: float = 0.0,
    *,
    shape: KernelShape = "gaussian",
    beta: float = 1.0,
) -> Tensor:
    """A bell-shaped kernel with sum 1.

    Args:
        size: side in pixels, odd.
        sigma_x, sigma_y: widths along the two axes in pixels, above 0; equal is isotropic.
        theta: rotation of the axes in radians.
        shape: "gaussian" exp(-q/2), "generalized" exp(-q^beta / 2), "plateau" 1 / (q^beta + 1).
        beta: exponent, above 0; "gaussian" does not use it.

    Returns:
        (size, size) float32 on the CPU.

    Raises:
        BIRError: an even size.
    """
    require_odd(size)
    x, y = _grid(size)
    along = x * math.cos(theta) + y * math.sin(theta)
    across = y * math.cos(theta) - x * math.sin(theta)
    q = (along / sigma_x) ** 2 + (across / sigma_y) ** 2
    if shape == "gaussian":
        kernel = torch.exp(-0.5 * q)
    elif shape == "generalized":
        kernel = torch.exp(-0.5 * q**beta)
    else:
        kernel = 1 / (q**beta + 1)
    return (kernel / kernel.sum()).float()


def sinc_kernel(size: int, cutoff: float) -> Tensor:
    """A circular low-pass filter with sum 1; it leaves ringing (Real-ESRGAN, equation 6).

    k(r) = cutoff J1(cutoff r) / (2 pi r), and cutoff^2 / (4 pi) at the centre.

    Args:
        size: side in pixels, odd.
        cutoff: frequency in radians per pixel, in (0, pi].

    Returns:
        (size, size) float32 on the CPU.

    Raises:
        BIRError: an even size.
    """
    require_odd(size)
    x, y = _grid(size)
    radius = torch.sqrt(x**2 + y**2)
    centre = radius == 0
    safe_radius = torch.where(centre, torch.ones_like(radius), radius)
    ring = cutoff * torch.special.bessel_j1(cutoff * safe_radius) / (2 * math.pi * safe_radius)
    kernel = torch.where(centre, torch.full_like(ring, cutoff**2 / (4 * math.pi)), ring)
    return (kernel / kernel.sum()).float()


def delta_kernel(size: int) -> Tensor:
    """(size, size) kernel that changes nothing; size odd."""
    require_odd(size)
    kernel = torch.zeros(size, size)
    kernel[size // 2, size // 2] = 1
    return kernel


def pad_kernel(kernel: Tensor, size: int) -> Tensor:
    """Surround a kernel (k, k) with zeros up to (size, size); both odd."""
    margin = (size - kernel.shape[-1]) // 2
    return F.pad(kernel, (margin, margin, margin, margin))


@dataclass(frozen=True, kw_only=True)
class MixedKernels:
    """From what blur kernels are drawn. The defaults are those of the first order of Real-ESRGAN.

    Attributes:
        sizes: sides in pixels, odd; one is drawn for each image, all equally likely.
        sinc_probability: share of sinc kernels instead of bell-shaped ones.
        sinc_cutoff_small, sinc_cutoff_large: cut-off in radians per pixel for sizes below 13, and
            from 13 on.
        weights: of isotropic and anisotropic Gaussian, generalised Gaussian (isotropic,
            anisotropic) and plateau (isotropic, anisotropic) kernels.
        sigma: width of each axis in pixels.
        theta: rotation of anisotropic kernels in radians.
        beta_generalized, beta_plateau: ranges of the exponents. With probability 1/2 the exponent
            comes from [low, 1], else from [1, high].
        motion_probability: share of the paths of a moving camera instead of all these.
        motion_length: of a path in pixels, at least 1.
        motion_bend: by how much a path turns, in radians.
        motion_shake: deviation, in radians over the whole path, of the random walk that the
            direction makes besides.
        defocus_probability: share, among the others, of the discs of a lens out of focus.
        defocus_radius: of a disc in pixels.
    """

    sizes: tuple[int, ...] = tuple(range(7, 22, 2))
    sinc_probability: float = 0.1
    sinc_cutoff_small: Range = (math.pi / 3, math.pi)
    sinc_cutoff_large: Range = (math.pi / 5, math.pi)
    weights: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    sigma: Range = (0.2, 3.0)
    theta: Range = (-math.pi, math.pi)
    beta_generalized: Range = (0.5, 4.0)
    beta_plateau: Range = (1.0, 2.0)
    motion_probability: float = 0.0
    motion_length: Range = (5.0, 15.0)
    motion_bend: Range = (-math.pi / 2, math.pi / 2)
    motion_shake: Range = (0.0, 0.0)
    defocus_probability: float = 0.0
    defocus_radius: Range = (1.0, 8.0)

    def __post_init__(self) -> None:
        require_sizes("sizes", self.sizes)
        require_probability("sinc_probability", self.sinc_probability)
        require_cutoff("sinc_cutoff_small", self.sinc_cutoff_small)
        require_cutoff("sinc_cutoff_large", self.sinc_cutoff_large)
        require_weights("weights", self.weights, len(KERNEL_KINDS))
        require_range("sigma", self.sigma, 0.01, math.inf)
        require_range("theta", self.theta, -math.pi, math.pi)
        for name in ("beta_generalized", "beta_plateau"):
            low, high = getattr(self, name)
            require_range(name, (low, 1.0), 0.01, 1.0)
            require_range(name, (1.0, high), 1.0, math.inf)
        require_probability("motion_probability", self.motion_probability)
        require_range("motion_length", self.motion_length, 1.0, math.inf)
        require_range("motion_bend", self.motion_bend, -math.pi, math.pi)
        require_range("motion_shake", self.motion_shake, 0, math.inf)
        require_probability("defocus_probability", self.defocus_probability)
        require_range("defocus_radius", self.defocus_radius, 0.01, math.inf)


def _draw_beta(bounds: Range, generator: torch.Generator) -> float:
    low, high = bounds
    return uniform((low, 1.0) if chance(0.5, generator) else (1.0, high), generator)


def _draw_motion(parameters: MixedKernels, generator: torch.Generator) -> tuple[Tensor, KernelDraw]:
    length = uniform(parameters.motion_length, generator)
    theta = uniform((0.0, math.pi), generator)
    bend = uniform(parameters.motion_bend, generator)
    values: KernelDraw = {"length": length, "theta": theta, "bend": bend}
    steps: list[float] = []
    if parameters.motion_shake[1] > 0:
        deviation = uniform(parameters.motion_shake, generator) / math.sqrt(SHAKE_STEPS)
        steps = (deviation * torch.randn(SHAKE_STEPS, generator=generator)).tolist()
        values["steps"] = steps
    kernel = motion_kernel(length, theta, bend, steps)
    return kernel, {"kind": "motion", "size": kernel.shape[-1], **values}


def draw_kernel(parameters: MixedKernels, generator: torch.Generator) -> tuple[Tensor, KernelDraw]:
    """Draw one kernel.

    Returns:
        The kernel, float32 on the CPU, and what was drawn: "kind", "size" and, by kind, "cutoff",
        "length", "theta", "bend" and "steps", "radius", or "sigma_x", "sigma_y", "theta", "beta".
    """
    # Where there is no motion nothing is drawn for it: other presets keep their numbers.
    if parameters.motion_probability and chance(parameters.motion_probability, generator):
        return _draw_motion(parameters, generator)
    if parameters.defocus_probability and chance(parameters.defocus_probability, generator):
        radius = uniform(parameters.defocus_radius, generator)
        kernel = disc_kernel(radius)
        return kernel, {"kind": "defocus", "size": kernel.shape[-1], "radius": radius}
    size = choose_evenly(parameters.sizes, generator)
    if chance(parameters.sinc_probability, generator):
        small = size < 13
        cutoff = uniform(
            parameters.sinc_cutoff_small if small else parameters.sinc_cutoff_large, generator
        )
        return sinc_kernel(size, cutoff), {"kind": "sinc", "size": size, "cutoff": cutoff}
    shape, isotropic = choose(KERNEL_KINDS, parameters.weights, generator)
    sigma_x = sigma_y = uniform(parameters.sigma, generator)
    theta = 0.0
    if not isotropic:
        sigma_y = uniform(parameters.sigma, generator)
        theta = uniform(parameters.theta, generator)
    drawn: KernelDraw = {
        "kind": f"{shape}_{'isotropic' if isotropic else 'anisotropic'}",
        "size": size,
        "sigma_x": sigma_x,
        "sigma_y": sigma_y,
        "theta": theta,
    }
    beta = 1.0
    if shape != "gaussian":
        generalized = shape == "generalized"
        bounds = parameters.beta_generalized if generalized else parameters.beta_plateau
        drawn["beta"] = beta = _draw_beta(bounds, generator)
    return bell_kernel(size, sigma_x, sigma_y, theta, shape=shape, beta=beta), drawn


def draw_final_sinc(
    probability: float, sizes: tuple[int, ...], cutoff: Range, generator: torch.Generator
) -> tuple[Tensor, KernelDraw]:
    """Draw the sinc kernel that ends the Real-ESRGAN degradation, or, with 1 - probability, a
    delta; returns as `draw_kernel`."""
    size = choose_evenly(sizes, generator)
    if not chance(probability, generator):
        return delta_kernel(size), {"kind": "delta", "size": size}
    drawn_cutoff = uniform(cutoff, generator)
    return sinc_kernel(size, drawn_cutoff), {"kind": "sinc", "size": size, "cutoff": drawn_cutoff}


def stack_kernels(kernels: list[Tensor]) -> Tensor:
    """(B, k, k): kernels of odd sizes, surrounded by zeros up to the largest."""
    largest = max(kernel.shape[-1] for kernel in kernels)
    return torch.stack([pad_kernel(kernel, largest) for kernel in kernels])


def pad_reflect(image: Tensor, vertical: int, horizontal: int) -> Tensor:
    """Mirror (B, C, H, W) about the centres of its border pixels, at both ends of each axis.

    Like torch's "reflect", but it goes on mirroring where the margin is larger than the image.
    """
    height, width = image.shape[-2:]
    if vertical < height and horizontal < width:
        return F.pad(image, (horizontal, horizontal, vertical, vertical), mode="reflect")
    rows = mirrored_indices(height, vertical, vertical, image.device)
    columns = mirrored_indices(width, horizontal, horizontal, image.device)
    return image.index_select(-2, rows).index_select(-1, columns)


def filter2d(image: Tensor, kernels: Tensor) -> Tensor:
    """Correlate each image with its own kernel; borders are reflected.

    Args:
        image: (B, C, H, W) float, any size from 1 pixel on.
        kernels: (B, k, k), or (1, k, k) for all images; k odd; any device.

    Returns:
        (B, C, H, W).

    Raises:
        BIRError: an even k, or a number of kernels that is neither 1 nor B.
    """
    batch, count, size = image.shape[0], kernels.shape[0], kernels.shape[-1]
    require_odd(size)
    if count not in (1, batch):
        raise BIRError(
            f"There should be one kernel, or one for each of the {batch} images, but {count} came; "
            "pass kernels of shape (B, k, k)."
        )
    from kornia.filters import filter2d as filter_valid  # here, as commands would start later by it

    # kornia's own padding fails where the margin is larger than the image.
    padded = pad_reflect(image, size // 2, size // 2)
    filtered: Tensor = filter_valid(padded, kernels.to(image), padding="valid")
    return filtered


def blur_gaussian(image: Tensor, size: int, sigma: float) -> Tensor:
    """Isotropic Gaussian blur of (B, C, H, W) as two one-dimensional filters, borders reflected;
    size odd, sigma in pixels and above 0."""
    from kornia.filters import filter2d_separable

    axis = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    row = torch.exp(-0.5 * (axis / sigma) ** 2)
    row = (row / row.sum()).to(image)[None]
    padded = pad_reflect(image, size // 2, size // 2)
    blurred: Tensor = filter2d_separable(padded, row, row, padding="valid")
    return blurred


def sharpen(
    image: Tensor, *, size: int = 51, weight: float = 0.5, threshold: float = 10.0
) -> Tensor:
    """Unsharp masking of edges only (Real-ESRGAN, section 3.4).

    The residual image - blur is added where it is above the threshold; the mask is blurred too, so
    that flat regions, and noise in them, stay as they are.

    Args:
        image: (B, C, H, W) float in [0, 1].
        size: side of the Gaussian in pixels, odd. Its sigma is 0.3 ((size - 1) / 2 - 1) + 0.8.
        weight: share of the residual that is added.
        threshold: of the residual, in steps of 8 bit.

    Returns:
        (B, C, H, W) in [0, 1].

    Raises:
        BIRError: an even size.
    """
    require_odd(size)
    sigma = 0.3 * ((size - 1) / 2 - 1) + 0.8
    residual = image - blur_gaussian(image, size, sigma)
    mask = (residual.abs() * 255 > threshold).to(image.dtype)
    soft_mask = blur_gaussian(mask, size, sigma)
    sharp = (image + weight * residual).clamp(0, 1)
    return soft_mask * sharp + (1 - soft_mask) * image
