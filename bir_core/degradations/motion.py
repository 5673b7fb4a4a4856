"""Blur of a camera that moves while the shutter is open."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import BIRError

_POINTS_PER_PIXEL = 8


def motion_kernel(
    length: float, theta: float = 0.0, bend: float = 0.0, steps: Sequence[float] = ()
) -> Tensor:
    """The path of a point of light at constant speed, with sum 1: an arc of a circle, or the random
    walk of a hand that shakes.

    Args:
        length: of the path in pixels, at least 1.
        theta: direction in the middle of the path in radians, from the columns to the rows.
        bend: by how much the direction turns from one end to the other in radians, within
            -pi..pi; 0 is a straight line.
        steps: by which the direction turns besides in radians, one after each of as many equal
            parts of the path, whose mean direction stays theta.

    Returns:
        (k, k) float32 on the CPU, k odd and large enough for the path; its centre of mass is in
        the middle.

    Raises:
        BIRError: a length or a bend outside of these bounds.
    """
    if not length >= 1 or not abs(bend) <= math.pi:
        raise BIRError(
            "A motion should have a length of at least 1 pixel and a bend within -pi..pi, but "
            f"{length} and {bend} came; choose others."
        )
    count = math.ceil(length * _POINTS_PER_PIXEL)
    along = (torch.arange(count, dtype=torch.float64) + 0.5) / count - 0.5
    angle = theta + bend * along
    if steps:
        turned = torch.tensor(steps, dtype=torch.float64).cumsum(0)
        part = ((along + 0.5) * len(steps)).long()
        angle += (turned - turned.mean())[part]
    path = torch.stack([angle.sin(), angle.cos()], dim=1).cumsum(0) * (length / count)
    path -= path.mean(dim=0)
    middle = math.ceil(length / 2) + 1
    kernel = torch.zeros(2 * middle + 1, 2 * middle + 1, dtype=torch.float64)
    place = path + middle
    corner = place.floor()
    row_share, column_share = (place - corner).unbind(1)
    rows, columns = corner.long().unbind(1)
    for down, rows_weight in ((0, 1 - row_share), (1, row_share)):
        for right, columns_weight in ((0, 1 - column_share), (1, column_share)):
            kernel.index_put_(
                (rows + down, columns + right), rows_weight * columns_weight, accumulate=True
            )
    return (kernel / count).float()
