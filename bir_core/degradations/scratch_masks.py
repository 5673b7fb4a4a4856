"""Holes as scratches, hairs and dust leave them once they are taken out of a picture."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .degradation import Degraded, Randomness
from .draws import Range, require_range, uniform
from .marks import curve, draw_number, draw_place, paint_discs
from .masks import HoleDegradation, masked

# Radians by which a line turns over its own length, from nearly straight to curled.
BENDS = (0.1, 6.0)


@dataclass(frozen=True, kw_only=True)
class ScratchMasks(HoleDegradation):
    """Thin lines and specks.

    Counts are for 256 x 256 pixels; all ranges are log-uniform.

    Attributes:
        lines: how many scratches and hairs.
        lengths: of a line, in pixels.
        widths: of a line, in pixels.
        specks: how many.
        sides: diameter of a speck, in pixels.
    """

    lines: Range = (2.0, 16.0)
    lengths: Range = (8.0, 400.0)
    widths: Range = (1.0, 12.0)
    specks: Range = (2.0, 40.0)
    sides: Range = (1.0, 12.0)

    def __post_init__(self) -> None:
        for name in ("lines", "lengths", "widths", "specks", "sides"):
            require_range(name, getattr(self, name), 1e-3, 1e4)

    def degrade(self, hq: Tensor, random: Randomness) -> Degraded:
        """A hole for each image."""
        size = (hq.shape[-2], hq.shape[-1])
        holes = torch.stack([draw_scratches(self, size, random.generator) for _ in hq])
        random.drawn["hole_share"] = holes.mean(dim=(1, 2))
        return Degraded(masked(hq, holes[:, None]), hq, random.drawn)


def draw_scratches(
    parameters: ScratchMasks, size: tuple[int, int], generator: torch.Generator
) -> Tensor:
    """Draw a hole.

    Args:
        size: height and width of the picture.

    Returns:
        (H, W) float32 on the CPU, 1 in the hole, else 0; at least one pixel is 1.
    """

    def draw(bounds: Range) -> float:
        low, high = (math.log(bound) for bound in bounds)
        return math.exp(uniform((low, high), generator))

    coverage = torch.zeros(size)
    for _ in range(draw_number(parameters.lines, size, generator)):
        length, width = draw(parameters.lengths), draw(parameters.widths)
        heading = uniform((0.0, math.tau), generator)
        bend = draw(BENDS) / length
        start = draw_place(size, generator)
        _cut(coverage, curve(start, heading, length, bend, length / 3, generator), width)
    for _ in range(draw_number(parameters.specks, size, generator)):
        _cut(coverage, draw_place(size, generator)[None], draw(parameters.sides))
    hole = (coverage >= 0.5).float()
    if not hole.any():
        y, x = (
            min(int(place), side - 1)
            for place, side in zip(draw_place(size, generator).tolist(), size, strict=True)
        )
        hole[y, x] = 1
    return hole


def _cut(coverage: Tensor, points: Tensor, width: float) -> None:
    """Cover what lies within half the width of the points (N, 2), at least a pixel."""
    radii = torch.full((len(points),), max(width / 2, 0.5))
    paint_discs(coverage, points, radii, torch.ones(len(points)))
