"""Smooth random fields: how strong a damage is at each place of a picture.

u(p) = Phi(sqrt(2 / K) sum_k cos(2 pi f_k p + phi_k))

with K plane waves of random directions and phases, the place p in units of the picture's longer
side, and the distribution function Phi of the normal distribution. The sum has the variance 1, so
that u takes all values between 0 and 1 about equally often. Nothing depends on the number of
pixels: a picture in half the size has the same field.
"""

import math

import torch
from torch import Tensor

from .draws import Range, uniform_per_sample

WAVES = 6


def draw_waves(cycles: Range, count: int, generator: torch.Generator) -> Tensor:
    """The waves of `count` fields.

    Args:
        cycles: range of the waves that fit into the longer side.

    Returns:
        (count, WAVES, 3) float32: downwards and to the right in cycles, and the phase in radians.
    """
    number = count * WAVES
    length = uniform_per_sample(cycles, number, generator)
    angle = uniform_per_sample((0.0, 2 * math.pi), number, generator)
    phase = uniform_per_sample((0.0, 2 * math.pi), number, generator)
    waves = torch.stack([length * angle.sin(), length * angle.cos(), phase], dim=1)
    return waves.view(count, WAVES, 3)


def smooth_fields(waves: Tensor, height: int, width: int) -> Tensor:
    """The fields of waves (B, K, 3), see `draw_waves`, at the centres of pixels: (B, 1, H, W) in
    [0, 1]."""
    rows, columns = (
        (torch.arange(side, device=waves.device) + 0.5) / max(height, width)
        for side in (height, width)
    )
    total = waves.new_zeros(len(waves), height, width)
    for wave in waves.unbind(1):
        down, right, phase = wave.view(-1, 3, 1, 1).unbind(1)
        total += torch.cos(2 * math.pi * (down * rows[:, None] + right * columns) + phase)
    return torch.special.ndtr(total * math.sqrt(2 / waves.shape[1]))[:, None]
