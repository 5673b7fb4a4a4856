"""Holes filled roughly from their rims, coarse to fine: what a network of inpainting corrects."""

import torch
from torch import Tensor
from torch.nn import functional as F

# Averages over neighbours at each size of the picture. With twelve, thin holes are as close to the
# picture as those that biharmonic functions fill.
SWEEPS = 12


def fill_roughly(image: Tensor, hole: Tensor, sweeps: int = SWEEPS) -> Tensor:
    """Continue what surrounds a hole smoothly into it: about the solution of Laplace's equation.

    Args:
        image: (B, 3, H, W), any H and W from 1 on; what is in the hole does not count.
        hole: (B, 1, H, W), 1 in the hole, else 0.
        sweeps: averages over the four neighbours of each pixel, at each size.

    Returns:
        (B, 3, H, W), outside of the hole as it was; 0 in an image that is all hole.
    """
    known = 1 - hole
    pyramid = [(image * known, known)]
    while min(pyramid[-1][1].shape[-2:]) > 1 and not pyramid[-1][1].all():
        pyramid.append(_halved(*pyramid[-1]))
    values, known = pyramid.pop()
    share = known.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    mean = (values * known).sum(dim=(2, 3), keepdim=True) / share
    filled = torch.where(known > 0, values, mean)
    for values, known in reversed(pyramid):
        wide = F.interpolate(filled, values.shape[-2:], mode="bilinear")
        filled = torch.where(known > 0, values, wide)
        for _ in range(sweeps):
            filled = torch.where(known > 0, filled, _of_neighbours(filled))
    return filled


def _halved(values: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Means of what is known in squares of 2 x 2 pixels; 0 where nothing is."""
    share = F.avg_pool2d(known, 2, ceil_mode=True)
    mean = F.avg_pool2d(values * known, 2, ceil_mode=True) / share.clamp(min=0.25)
    return mean, (share > 0).to(known)


def _of_neighbours(image: Tensor) -> Tensor:
    around = F.pad(image, (1, 1, 1, 1), mode="replicate")
    rows = around[..., 2:, 1:-1] + around[..., :-2, 1:-1]
    columns = around[..., 1:-1, 2:] + around[..., 1:-1, :-2]
    return (rows + columns) / 4
