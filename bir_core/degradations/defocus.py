"""Blur of a lens that is not in focus."""

import math

import torch
from torch import Tensor

from ..errors import BIRError


def disc_kernel(radius: float) -> Tensor:
    """The image of a point of light out of focus: a disc, with the share of each pixel that it
    covers, and sum 1.

    Args:
        radius: in pixels, above 0.

    Returns:
        (k, k) float32 on the CPU, k odd and just large enough for the disc.

    Raises:
        BIRError: another radius.
    """
    if not 0 < radius < math.inf:
        raise BIRError(
            f"A disc of blur should have a radius above 0 pixels, but {radius} came; choose "
            "another."
        )
    margin = math.ceil(radius - 0.5)
    edges = torch.arange(-margin, margin + 2, dtype=torch.float64) - 0.5
    corner = _covered(edges[None], edges[:, None], radius)
    covered = corner[1:, 1:] - corner[:-1, 1:] - corner[1:, :-1] + corner[:-1, :-1]
    return (covered.clamp(min=0) / (math.pi * radius**2)).float()


def _covered(x: Tensor, y: Tensor, radius: float) -> Tensor:
    """The area of the disc between the axes and the lines at x and y, negative where one of both
    is: from a corner the integral of min(y, sqrt(r^2 - x^2))."""
    across, height = x.abs().clamp(max=radius), y.abs().clamp(max=radius)
    flat = torch.minimum(across, (radius**2 - height**2).clamp(min=0).sqrt())
    area = height * flat + _under_circle(across, radius) - _under_circle(flat, radius)
    return torch.sign(x) * torch.sign(y) * area


def _under_circle(x: Tensor, radius: float) -> Tensor:
    """The integral of sqrt(r^2 - x^2) from 0 to x, within 0..r."""
    root = (radius**2 - x**2).clamp(min=0).sqrt()
    return (x * root + radius**2 * torch.asin((x / radius).clamp(max=1))) / 2
