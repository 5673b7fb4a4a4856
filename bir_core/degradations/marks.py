"""Marks on a picture: curves, discs and fields of noise, from which damage is made.

Places are (y, x) in pixels from the centre of the top left one; coverage is (H, W) in [0, 1].
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .draws import Range, chance, uniform

# Between two points of a curve, in pixels: discs of half a pixel still join.
STEP = 0.7
# Ranges of counts are for so many pixels.
COUNTED_AREA = 256 * 256


def draw_number(bounds: Range, size: tuple[int, int], generator: torch.Generator) -> int:
    """How many marks a picture gets: log-uniform for 256 x 256 pixels, in proportion to the area,
    the fraction rounded up or down by chance."""
    low, high = (math.log(bound) for bound in bounds)
    number = math.exp(uniform((low, high), generator)) * size[0] * size[1] / COUNTED_AREA
    return int(number) + chance(number % 1, generator)


def draw_place(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A place anywhere in a picture, (2,)."""
    return torch.rand(2, generator=generator) * torch.tensor(size)


def smooth_line(length: int, period: float, generator: torch.Generator) -> Tensor:
    """Noise of deviation about 1 along a line, (length,), that changes over `period` positions."""
    knots = torch.randn(1, 1, max(2, math.ceil(length / period) + 1), generator=generator)
    return F.interpolate(knots, length, mode="linear", align_corners=True)[0, 0]


def smooth_field(size: tuple[int, int], period: float, generator: torch.Generator) -> Tensor:
    """Noise of deviation about 1 over a picture, (H, W), that changes over `period` pixels."""
    rows, columns = (max(2, math.ceil(side / period) + 1) for side in size)
    knots = torch.randn(1, 1, rows, columns, generator=generator)
    return F.interpolate(knots, size, mode="bicubic", align_corners=True)[0, 0]


def coordinates(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """y (H, 1) and x (1, W) of the pixels."""
    return torch.arange(size[0])[:, None].float(), torch.arange(size[1])[None].float()


def curve(
    start: Tensor,
    heading: float,
    length: float,
    bend: float,
    period: float,
    generator: torch.Generator,
) -> Tensor:
    """Points (N, 2) of a curve, `STEP` pixels apart.

    Args:
        start: (2,), where it begins.
        heading: its first direction in radians.
        length: in pixels.
        bend: deviation of the curvature, in radians for each pixel.
        period: pixels over which the curvature changes.
    """
    count = max(2, round(length / STEP))
    curvature = bend * smooth_line(count, period / STEP, generator)
    directions = heading + (STEP * curvature).cumsum(0)
    steps = STEP * torch.stack([directions.sin(), directions.cos()], dim=1)
    return start + steps.cumsum(0)


def paint_discs(coverage: Tensor, points: Tensor, radii: Tensor, opacity: Tensor) -> None:
    """Cover (H, W) in place by discs with soft edges; where discs overlap the strongest counts.

    Args:
        points: (N, 2), also outside of the picture.
        radii: (N,) in pixels; a disc thinner than a pixel covers less of it.
        opacity: (N,) in [0, 1].
    """
    height, width = coverage.shape
    reach = math.ceil(float(radii.max()) + 0.5)
    limits = torch.tensor([height, width])
    near = ((points > -reach - 1) & (points < limits + reach)).all(1)
    points, radii, opacity = (
        points[near],
        radii[near],
        opacity[near] * (2 * radii[near]).clamp(max=1),
    )
    side = torch.arange(-reach, reach + 1)
    offsets = torch.cartesian_prod(side, side)
    pixels = points.round().long()[:, None] + offsets
    distance = (pixels - points[:, None]).square().sum(2).sqrt()
    values = (radii[:, None] + 0.5 - distance).clamp(0, 1) * opacity[:, None]
    inside = ((pixels >= 0) & (pixels < limits)).all(2) & (values > 0)
    places = (pixels[..., 0] * width + pixels[..., 1])[inside]
    coverage.view(-1).scatter_reduce_(0, places, values[inside], "amax")


def blend(picture: Tensor, colour: Tensor, coverage: Tensor) -> Tensor:
    """A picture (3, H, W) under a colour (3,) or picture of colours (3, H, W), where it covers."""
    colour = colour.reshape(3, *colour.shape[1:] or (1, 1))
    return picture + coverage * (colour - picture)


def draw_colour(bright_share: float, generator: torch.Generator) -> Tensor:
    """A colour (3,) near white or near black, seldom with a tint."""
    level = uniform((0.78, 1.0), generator)
    if not chance(bright_share, generator):
        level = uniform((0.0, 0.25), generator)
    tint = 0.12 if chance(0.25, generator) else 0.02
    return (level + tint * torch.randn(3, generator=generator)).clamp(0, 1)
