"""Damage from fields: fractal cracks, level lines and thresholds of noise, folds of paper. It has
nothing in common with `painted_damage`, so that what learned from one is tested on the other."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .damage import DamageDegradation
from .draws import chance, require_probability, uniform
from .marks import blend, coordinates, draw_colour, draw_number, draw_place, smooth_field

Size = tuple[int, int]
# Cracks are drawn on a grid so many times as fine.
FINE = 3


@dataclass(frozen=True, kw_only=True)
class TexturedDamage(DamageDegradation):
    """Cracks, fibres, scratches, specks, folds and losses of the surface.

    Attributes:
        crack_probability, fibre_probability, scratch_probability, speck_probability,
            fold_probability, loss_probability: of each kind on a print.
    """

    crack_probability: float = 0.5
    fibre_probability: float = 0.4
    scratch_probability: float = 0.6
    speck_probability: float = 0.6
    fold_probability: float = 0.4
    loss_probability: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("crack", "fibre", "scratch", "speck", "fold", "loss"):
            require_probability(f"{name}_probability", getattr(self, f"{name}_probability"))

    def damage(self, picture: Tensor, generator: torch.Generator) -> Tensor:
        """From the losses of the surface up to the specks."""
        size = (picture.shape[-2], picture.shape[-1])
        if chance(self.loss_probability, generator):
            picture = blend(picture, draw_colour(0.6, generator), _losses(size, generator))
        if chance(self.fold_probability, generator):
            for _ in range(1 + chance(0.5, generator)):
                picture = _folded(picture, generator)
        layers = (
            (self.crack_probability, _cracks, 0.8),
            (self.fibre_probability, _fibres, 0.4),
            (self.scratch_probability, _scratches, 0.7),
            (self.speck_probability, _specks, 0.5),
        )
        for probability, draw, bright_share in layers:
            if chance(probability, generator):
                opacity = uniform((0.35, 1.0), generator)
                coverage = opacity * draw(size, generator)
                picture = blend(picture, draw_colour(bright_share, generator), coverage)
        return picture


def midpoint_line(start: Tensor, end: Tensor, roughness: float, rng: torch.Generator) -> Tensor:
    """Points (N, 2) of a fractal line: middles of its pieces are moved across by random parts of
    their lengths (Fournier et al., "Computer Rendering of Stochastic Models", CACM 1982), until
    pieces are about a pixel long."""
    points = torch.stack([start, end])
    for _ in range(math.ceil(math.log2(max(float((end - start).norm()), 2)))):
        pieces = points.diff(dim=0)
        across = torch.stack([-pieces[:, 1], pieces[:, 0]], dim=1)
        moved = roughness * torch.randn(len(pieces), 1, generator=rng) * across
        middles = (points[:-1] + points[1:]) / 2 + moved
        points = torch.cat([torch.stack([points[:-1], middles], 1).flatten(0, 1), points[-1:]])
    return points


def _cracks(size: Size, generator: torch.Generator) -> Tensor:
    """Coverage (H, W) of fractal lines, which fork."""
    fine = torch.zeros(FINE * size[0], FINE * size[1])
    limits = torch.tensor(fine.shape)
    for _ in range(draw_number((0.2, 1.5), size, generator)):
        start = draw_place(size, generator) * FINE
        length = FINE * uniform((0.1, 0.8), generator) * max(size)
        angle = uniform((0.0, math.tau), generator)
        todo = [(start, angle, length)]
        while todo:
            start, angle, length = todo.pop()
            end = start + length * torch.tensor([math.sin(angle), math.cos(angle)])
            line = midpoint_line(start, end, 0.12, generator)
            pixels = line.round().long()
            pixels = pixels[((pixels >= 0) & (pixels < limits)).all(1)]
            fine[pixels[:, 0], pixels[:, 1]] = 1
            while length > 40 and chance(0.45, generator):
                fork = line[int(torch.randint(len(line), (), generator=generator))]
                turn = angle + uniform((-1.0, 1.0), generator)
                length = length * uniform((0.2, 0.6), generator)
                todo.append((fork, turn, length))
    width = 2 * int(torch.randint(1, 4, (), generator=generator)) + 1  # in fine pixels
    thick = F.max_pool2d(fine[None, None], width, 1, width // 2)
    return F.avg_pool2d(thick, FINE)[0, 0]


def _fibres(size: Size, generator: torch.Generator) -> Tensor:
    """Coverage of pieces of the level lines of noise, all of one width."""
    field = smooth_field(size, uniform((15, 60), generator), generator)
    slope = _slope(field)
    level = uniform((-0.7, 0.7), generator)
    distance = (field - level).abs() / slope.clamp(min=1e-3)
    line = (uniform((0.4, 1.2), generator) + 0.5 - distance).clamp(0, 1)
    pieces = smooth_field(size, uniform((20, 50), generator), generator)
    return line * ((pieces - uniform((0.6, 1.4), generator)) * 6).clamp(0, 1)


def _slope(field: Tensor) -> Tensor:
    """The length of a field's gradient (H, W), for each pixel."""
    padded = F.pad(field[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    rows = (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2
    columns = (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2
    return (rows.square() + columns.square()).sqrt()


def _scratches(size: Size, generator: torch.Generator) -> Tensor:
    """Coverage of nearly parallel lines, straight or on wide circles, broken by noise."""
    y, x = coordinates(size)
    coverage = torch.zeros(size)
    angle, apart = uniform((0.0, math.pi), generator), uniform((0.0, 0.6), generator)
    grain = smooth_field(size, uniform((3, 12), generator), generator)
    for _ in range(draw_number((0.4, 5.0), size, generator)):
        turned = angle + apart * uniform((-1.0, 1.0), generator)
        place = draw_place(size, generator)
        along = (y - place[0]) * math.sin(turned) + (x - place[1]) * math.cos(turned)
        across = (y - place[0]) * math.cos(turned) - (x - place[1]) * math.sin(turned)
        half = uniform((0.03, 0.6), generator) * max(size)
        across = across + uniform((-0.2, 0.2), generator) * along.square() / max(size)
        ends = ((half - along.abs()) / 6).clamp(0, 1)
        width = uniform((0.3, 1.6), generator)
        line = (width + 0.5 - across.abs()).clamp(0, 1) * min(2 * width, 1.0)
        rough = ((grain + uniform((0.0, 2.5), generator)) * 2).clamp(0, 1)
        coverage = torch.maximum(coverage, line * ends * rough * uniform((0.5, 1.0), generator))
    return coverage


def _specks(size: Size, generator: torch.Generator) -> Tensor:
    """Coverage of what of a fine noise lies above a high threshold."""
    field = smooth_field(size, uniform((2.0, 6.0), generator), generator)
    return ((field - uniform((2.3, 3.2), generator)) * 5).clamp(0, 1)


def _losses(size: Size, generator: torch.Generator) -> Tensor:
    """Coverage of patches where noise of several octaves is high: stains, flaked surface."""
    period = uniform((40, 160), generator)
    octaves = [0.55**n * smooth_field(size, period / 2**n, generator) for n in range(5)]
    field = torch.stack(octaves).sum(0) / math.sqrt(sum(0.55 ** (2 * n) for n in range(5)))
    sharpness = uniform((2.0, 15.0), generator)
    return ((field - uniform((1.7, 2.4), generator)) * sharpness).clamp(0, 1)


def _folded(picture: Tensor, generator: torch.Generator) -> Tensor:
    """A picture (3, H, W) with a fold from edge to edge: another light on either side, and the
    surface is worn off beside it."""
    size = (picture.shape[-2], picture.shape[-1])
    y, x = coordinates(size)
    place, angle = draw_place(size, generator), uniform((0.0, math.pi), generator)
    across = (y - place[0]) * math.cos(angle) - (x - place[1]) * math.sin(angle)
    across = across + 2 * smooth_field(size, 70, generator)
    light = uniform((-0.04, 0.04), generator) * torch.sign(across) * (-across.abs() / 60).exp()
    edge = (
        uniform((0.1, 0.35), generator)
        * (-(across / uniform((0.8, 2.0), generator)).square()).exp()
    )
    picture = picture + light + (edge if chance(0.6, generator) else -edge)
    wear = smooth_field(size, uniform((2.0, 5.0), generator), generator)
    reach = uniform((1.5, 5.0), generator)
    worn = ((wear + 1.2 - (across / reach).square()) * 3).clamp(0, 1)
    return blend(picture, draw_colour(0.9, generator), uniform((0.3, 1.0), generator) * worn)
