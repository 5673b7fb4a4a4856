"""The quality of JPEG: from the table in a file, and from pixels that still lie on its grid."""

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from ..degradations.jpeg import LUMA, codec_tables
from ..images import luma
from ..networks.patch_statistics import BLOCK, dct_matrix
from .patches import Measured, spread_patches

QUALITIES = range(1, 101)
# Above this the steps are too small to be told from rounding.
HIGHEST_SEEN = 96
SIDE = 128  # pixels of the windows that are looked at
# The frequencies whose coefficients are large enough: u + v in 1..4.
LOWEST, HIGHEST = 1, 4
# Of a coefficient, by rounding of the pixels to 8 bits, in steps of 8 bit.
ROUNDING = 0.4
WIDTH = ROUNDING * math.sqrt(2 * math.pi)
# Share of coefficients that lie anywhere, as where the picture was clipped.
ELSEWHERE = 0.05
# Coefficients that are needed, and what the mean of their log likelihood ratios has to be.
FEWEST, EVIDENCE = 50, 0.1


def table_quality(table: Sequence[int]) -> Measured:
    """The quality, 1 to 100, that makes libjpeg write a table of brightness.

    Args:
        table: 64 steps, by rows.

    Returns:
        With a spread of 0 where libjpeg writes exactly this table; else the quality of the nearest
        one, and the mean distance of the qualities to which the single steps belong.
    """
    steps = torch.tensor(table, dtype=torch.float64)
    known = codec_tables(LUMA, list(QUALITIES)).flatten(1)
    # High qualities have small steps, of which a difference of 1 means more.
    distances = ((steps - known).abs() / (known + 1)).mean(dim=1)
    nearest = int(distances.argmin())
    if distances[nearest] == 0:
        return Measured(float(QUALITIES[nearest]), 0.0)
    of_steps = (steps - known).abs().argmin(dim=0)
    return Measured(float(QUALITIES[nearest]), float((of_steps - nearest).abs().double().mean()))


def grid_quality(image: Tensor) -> Measured | None:
    """The quality whose steps the coefficients of a picture are multiples of (Fan and de Queiroz,
    "Identification of bitmap compression history", IEEE Transactions on Image Processing 2003).

    Of each coefficient beyond half a step, the likelihood that it is a multiple of the step but for
    rounding is compared with that of any value. The steps are those of libjpeg's tables.

    Args:
        image: (1, 3, H, W) in [0, 1].

    Returns:
        None where there was no JPEG, or where the picture was changed after it: resized, blurred,
        or noise was added.
    """
    grey = luma(spread_patches(image.float().cpu(), SIDE)) * 255
    # First as in a picture that nobody cut.
    corners = ((0, 0), (_first_line(grey, -2), _first_line(grey, -1)))
    found = (_quality_on(grey, *corner) for corner in dict.fromkeys(corners))
    return next((quality for quality in found if quality is not None), None)


def _quality_on(grey: Tensor, top: int, left: int) -> Measured | None:
    """The same of windows (N, 1, h, w), in steps of 8 bit, in which blocks begin at a corner."""
    coefficients = _coefficients(grey[..., top:, left:])
    u, v = torch.meshgrid(torch.arange(BLOCK), torch.arange(BLOCK), indexing="ij")
    chosen = (u + v >= LOWEST) & (u + v <= HIGHEST)
    values = coefficients[:, chosen]  # (blocks, frequencies)
    evidence = []
    for steps in codec_tables(LUMA, list(QUALITIES[:HIGHEST_SEEN]))[:, chosen].float():
        counted = values.abs() > steps / 2
        off = values - (values / steps).round() * steps
        likely = steps / WIDTH * (-(off**2) / (2 * ROUNDING**2)).exp()
        ratios = ((1 - ELSEWHERE) * likely + ELSEWHERE).log()
        evidence.append(torch.stack([(ratios * counted).sum(), counted.sum()]))
    total, counts = torch.stack(evidence).unbind(1)
    best = int((total == total.max()).nonzero()[-1])  # several have the same steps
    if counts[best] < FEWEST or total[best] / counts[best] < EVIDENCE:
        return None
    weights = (total - total[best]).double().exp()
    distances = (torch.arange(HIGHEST_SEEN) - best).abs()
    return Measured(float(QUALITIES[best]), float((weights * distances).sum() / weights.sum()))


def _first_line(grey: Tensor, axis: int) -> int:
    """The first row or column of a block: before it, steps stand out most from their neighbours."""
    steps = grey.diff(dim=axis).abs().transpose(axis, 0).flatten(1).mean(dim=1)
    middle = steps[1:-1] - (steps[:-2] + steps[2:]) / 2
    whole = len(middle) // BLOCK * BLOCK
    profile = rearrange(middle[:whole], "(n k) -> n k", k=BLOCK).mean(0)
    return (int(profile.argmax()) + 2) % BLOCK


def _coefficients(grey: Tensor) -> Tensor:
    """(N, 1, h, w) -> (blocks, 8, 8), of the blocks that are whole."""
    height, width = (side // BLOCK * BLOCK for side in grey.shape[-2:])
    pattern = "b c (m u) (n v) -> (b c m n) u v"
    blocks = rearrange(grey[..., :height, :width], pattern, u=BLOCK, v=BLOCK)
    transform = dct_matrix()
    return transform @ blocks @ transform.T
