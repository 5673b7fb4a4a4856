"""Damage that is painted: curves, discs and stains laid over a print one by one."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .damage import DamageDegradation
from .draws import Range, chance, require_probability, require_range, uniform
from .marks import (
    blend,
    coordinates,
    curve,
    draw_colour,
    draw_number,
    draw_place,
    paint_discs,
    smooth_field,
    smooth_line,
)
from .outlines import draw_outlines

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class PaintedDamage(DamageDegradation):
    """Scratches that branch, hairs, dust, creases with a bright and a dark side, and stains.

    Each kind is on a print with a probability of its own; counts are for 256 x 256 pixels,
    log-uniform in their range.

    Attributes:
        scratches, hairs, dust, creases, stains: counts.
        scratch_probability, hair_probability, dust_probability, crease_probability,
            stain_probability: of each kind.
        widths: of scratches, in pixels.
        outlines: folder with pictures of real damage, bright on black (PNG); "": none.
        outline_probability: of laying a part of such a picture over the print.
    """

    scratches: Range = (0.5, 8.0)
    hairs: Range = (0.5, 5.0)
    dust: Range = (2.0, 60.0)
    creases: Range = (0.3, 2.0)
    stains: Range = (0.2, 2.0)
    scratch_probability: float = 0.7
    hair_probability: float = 0.4
    dust_probability: float = 0.5
    crease_probability: float = 0.3
    stain_probability: float = 0.2
    widths: Range = (0.6, 4.0)
    outlines: str = ""
    outline_probability: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("scratches", "hairs", "dust", "creases", "stains"):
            require_range(name, getattr(self, name), 1e-3, 1e4)
        for name in ("scratch", "hair", "dust", "crease", "stain", "outline"):
            require_probability(f"{name}_probability", getattr(self, f"{name}_probability"))
        require_range("widths", self.widths, 0.1, 100)

    def damage(self, picture: Tensor, generator: torch.Generator) -> Tensor:
        """Stains lie under creases, these under scratches, dust and hairs on top."""
        size = (picture.shape[-2], picture.shape[-1])

        def number(probability: float, bounds: Range) -> int:
            count = draw_number(bounds, size, generator)
            return count if chance(probability, generator) else 0

        for _ in range(number(self.stain_probability, self.stains)):
            picture = _stained(picture, generator)
        for _ in range(number(self.crease_probability, self.creases)):
            picture = _creased(picture, generator)
        # Scratches of one print are alike: of the same event.
        bright, heading = uniform((0.0, 1.3), generator), uniform((0.0, math.tau), generator)
        straight = chance(0.4, generator)
        for _ in range(number(self.scratch_probability, self.scratches)):
            turn = uniform((-0.15, 0.15) if straight else (-math.pi, math.pi), generator)
            coverage = _scratch(size, heading + turn, self.widths, generator)
            picture = blend(picture, draw_colour(bright, generator), coverage)
        for _ in range(number(self.hair_probability, self.hairs)):
            picture = blend(picture, draw_colour(0.4, generator), _hair(size, generator))
        specks = number(self.dust_probability, self.dust)
        for share in (0.5, 0.5):
            coverage = _dust(size, math.ceil(share * specks), generator)
            picture = blend(picture, draw_colour(0.6, generator), coverage)
        if self.outlines and chance(self.outline_probability, generator):
            coverage = draw_outlines(self.outlines, size, generator)
            opacity = uniform((0.35, 1.0), generator)
            picture = blend(picture, draw_colour(0.6, generator), opacity * coverage)
        return picture


def _scratch(size: Size, heading: float, widths: Range, generator: torch.Generator) -> Tensor:
    """Coverage (H, W) of a scratch with its branches."""
    coverage = torch.zeros(size)
    low, high = (math.log(width) for width in widths)
    width = math.exp(uniform((low, high), generator))
    longest = 1.3 * max(size)
    length = min(longest, 12 * math.exp(uniform((0.0, math.log(60)), generator)))
    bend = 0.03 * uniform((0.0, 1.0), generator) ** 2
    points = curve(draw_place(size, generator), heading, length, bend, 40, generator)
    _paint_stroke(coverage, points, width, generator)
    while chance(0.25, generator):
        place = points[int(torch.randint(len(points), (), generator=generator))]
        turn = heading + uniform((-1.2, 1.2), generator)
        branch = curve(place, turn, uniform((0.1, 0.6), generator) * length, bend, 40, generator)
        _paint_stroke(coverage, branch, 0.7 * width, generator)
    return coverage


def _paint_stroke(
    coverage: Tensor, points: Tensor, width: float, generator: torch.Generator
) -> None:
    """Paint a line whose width and opacity vary, with gaps."""
    count = len(points)
    radii = 0.5 * width * (0.35 * smooth_line(count, 25, generator)).exp()
    ends = torch.linspace(0, 1, count)
    radii = radii * (8 * torch.minimum(ends, 1 - ends)).clamp(0.3, 1)
    opacity = uniform((0.3, 1.1), generator) + 0.15 * smooth_line(count, 15, generator)
    gaps = uniform((-2.5, -0.3), generator)
    opacity = opacity * ((smooth_line(count, 20, generator) - gaps) * 4).clamp(0, 1)
    paint_discs(coverage, points, radii.clamp(max=20), opacity.clamp(0, 1))


def _hair(size: Size, generator: torch.Generator) -> Tensor:
    """Coverage of a hair or lint: curled, of even width and opacity."""
    coverage = torch.zeros(size)
    length = 15 * math.exp(uniform((0.0, math.log(15)), generator))
    bend = uniform((0.5, 4.0), generator) / length
    heading = uniform((0.0, math.tau), generator)
    points = curve(draw_place(size, generator), heading, length, bend, length / 3, generator)
    radius = torch.full((len(points),), uniform((0.35, 1.2), generator))
    opacity = torch.full((len(points),), uniform((0.4, 1.0), generator))
    paint_discs(coverage, points, radius, opacity)
    return coverage


def _dust(size: Size, count: int, generator: torch.Generator) -> Tensor:
    """Coverage of specks, each some discs beside each other."""
    coverage = torch.zeros(size)
    if not count:
        return coverage
    parts = 4
    largest = uniform((0.0, 1.6), generator)
    radii = 0.5 * (largest * torch.rand(count, 1, generator=generator)).exp()
    centres = torch.rand(count, 1, 2, generator=generator) * torch.tensor(size)
    shifts = 0.9 * radii[..., None] * torch.randn(count, parts, 2, generator=generator)
    opacity = (0.35 + 0.8 * torch.rand(count, 1, generator=generator)).clamp(max=1)
    paint_discs(
        coverage,
        (centres + shifts).reshape(-1, 2),
        radii.repeat(1, parts).flatten(),
        opacity.repeat(1, parts).flatten(),
    )
    return coverage


def _creased(picture: Tensor, generator: torch.Generator) -> Tensor:
    """A picture (3, H, W) with a crease: one side catches the light, and the surface cracks."""
    size = (picture.shape[-2], picture.shape[-1])
    y, x = coordinates(size)
    place, angle = draw_place(size, generator), uniform((0.0, math.pi), generator)
    across = (y - place[0]) * math.cos(angle) - (x - place[1]) * math.sin(angle)
    along = (y - place[0]) * math.sin(angle) + (x - place[1]) * math.cos(angle)
    reach = math.ceil(math.hypot(*size)) + 2
    positions = (along + reach).long()

    def by_length(period: float) -> Tensor:
        return smooth_line(2 * reach + 2, period, generator)[positions]

    across = across + uniform((0.0, 2.5), generator) * by_length(uniform((30, 120), generator))
    half = uniform((0.15, 1.0), generator) * max(size)
    middle = ((half - along.abs()) / 20).clamp(0, 1)
    width = uniform((1.0, 5.0), generator)
    side = uniform((-0.45, 0.45), generator)
    relief = across / width * (0.5 - (across / width).square() / 2).exp()
    picture = picture + side * middle * relief * (1 + 0.3 * by_length(40))
    broken = ((by_length(12) + uniform((-1.0, 1.5), generator)) * 3).clamp(0, 1)
    core = (uniform((0.3, 2.0), generator) + 0.5 - across.abs()).clamp(0, 1)
    coverage = uniform((0.0, 1.0), generator) * middle * broken * core
    return blend(picture, draw_colour(0.85, generator), coverage)


def _stained(picture: Tensor, generator: torch.Generator) -> Tensor:
    """A picture (3, H, W) with a spot that darkens or bleaches it, its rim often more so."""
    size = (picture.shape[-2], picture.shape[-1])
    y, x = coordinates(size)
    place = draw_place(size, generator)
    radius = 4 * math.exp(uniform((0.0, math.log(12)), generator))
    distance = ((y - place[0]).square() + (x - place[1]).square()).sqrt() / radius
    shape = 1 - distance + 0.3 * smooth_field(size, max(radius, 3.0), generator)
    soft = uniform((0.05, 0.5), generator)
    inside = torch.sigmoid(4 * shape / soft)
    rim = uniform((0.0, 1.0), generator) * (-(shape / 0.12).square()).exp()
    strength = uniform((0.15, 0.6), generator)
    brown = torch.tensor([0.75, 0.6, 0.35]) if chance(0.6, generator) else torch.zeros(3)
    colour = brown[:, None, None] * picture
    if chance(0.3, generator):
        colour = torch.ones(3)
    coverage = strength * (inside * uniform((0.4, 1.0), generator) + rim).clamp(0, 1)
    return blend(picture, colour, coverage)
