"""Windows that are spread over a picture, and what is said of them together.

So many at most, of one size, that pictures of any size take the same time and memory.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..images import pad_to_multiple

SIDE = 80  # as in the training of the network
MOST_ROWS = 6
# Corners lie on these lines, on which those of JPEG's blocks are in a picture that is not cut.
GRID = 8


@dataclass(frozen=True)
class Measured:
    """A number, and how far it is expected to be off on the average, in the same unit."""

    value: float
    spread: float


def spread_patches(image: Tensor, side: int = SIDE, most_rows: int = MOST_ROWS) -> Tensor:
    """Windows at even distances.

    Args:
        image: (1, C, H, W) in [0, 1], any size from 1 pixel on.
        side: of a window in pixels; a smaller picture is continued by reflection.
        most_rows: and most columns.

    Returns:
        (N, C, side, side), N at most most_rows^2; the same windows each time.
    """
    height, width = image.shape[-2:]
    windows = [
        pad_to_multiple(image[..., top : top + side, left : left + side], side)
        for top in _starts(height, side, most_rows)
        for left in _starts(width, side, most_rows)
    ]
    return torch.cat(windows)


def _starts(length: int, side: int, most: int) -> list[int]:
    count = max(1, min(most, length // side))
    last = max(0, length - side)
    return [round(last * place / max(count - 1, 1)) // GRID * GRID for place in range(count)]


def together(values: Tensor, spreads: Tensor) -> Measured:
    """One number from those of patches: their median, weighted by their spreads to the power -2.

    Patches without detail, out of focus or overexposed say little; their own spread makes them
    count little. The spread is the weighted median of theirs, or of the distances to the median if
    these are larger.

    Args:
        values, spreads: (N,).
    """
    weights = spreads**-2.0
    value = weighted_median(values, weights)
    within = weighted_median(spreads, weights)
    between = weighted_median((values - value).abs(), weights)
    return Measured(float(value), float(torch.maximum(within, between)))


def weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    """The least value at which half of all weight is reached; (N,) both, weights above 0."""
    order = values.argsort()
    reached = weights[order].cumsum(0)
    place = int((reached < reached[-1] / 2).sum())
    return values[order[place]]
