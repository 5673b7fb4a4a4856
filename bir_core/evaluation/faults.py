"""What goes wrong in a restoration, in numbers: colours that drift, seams of tiles, and results
that do not agree with the picture that they were made from."""

import math

import torch
from torch import Tensor

from ..errors import BIRError
from ..images import luma, resize
from ..metrics import psnr
from ..tiling import tile_starts

# Side in pixels of the parts of a picture whose mean colours are compared.
CELL = 64
# Pixels on each side of a border whose steps are compared with the step across it.
NEIGHBOURS = 8


def require_same_proportions(size: tuple[int, int], other: tuple[int, int], what: str) -> None:
    """Raise BIRError if pictures of (height, width) pixels cannot show the same; sides may be
    rounded to whole pixels. `what` names the other one in the sentence."""
    factors = [side / theirs for side, theirs in zip(size, other, strict=True)]
    rounding = sum(1 / side for side in other) * max(1.0, *factors)
    if abs(factors[0] - factors[1]) > rounding:
        raise BIRError(
            f"Expected {what} in the proportions of the picture of {size[1]} x {size[0]} pixels, "
            f"but {other[1]} x {other[0]} came; crop one of them so that both show the same."
        )


def color_drift(image: Tensor, other: Tensor) -> Tensor:
    """How far the colours of a picture are from those of another one, whatever its detail: the mean
    distance in CIE Lab (Delta E of 1976) between the mean colours of parts of `CELL` pixels. Below
    1 nobody sees it, from about 3 on it is plain.

    Args:
        image: (B, 3, H, W) in [0, 1], sRGB.
        other: (B, 3, H', W'), of any size in the same proportions.

    Returns:
        (B,) float64.

    Raises:
        BIRError: other proportions.
    """
    from kornia.color import rgb_to_lab  # here, as commands would start later by it

    _require_same(image, other)
    rows, columns = (math.ceil(side / CELL) for side in image.shape[-2:])
    ours, theirs = (
        rgb_to_lab(resize(each.double(), rows, columns, "area")) for each in (image, other)
    )
    distance: Tensor = torch.linalg.vector_norm(ours - theirs, dim=1).mean(dim=(1, 2))
    return distance


def consistency(image: Tensor, lq: Tensor) -> Tensor:
    """How well a restored picture, reduced again, agrees with the low-quality picture that it was
    made from: PSNR on RGB in dB after a bicubic reduction with antialiasing. Noise of the
    low-quality picture counts as disagreement.

    Args:
        image: (B, 3, H, W) in [0, 1].
        lq: (B, 3, h, w) in [0, 1], in the same proportions.

    Returns:
        (B,) float64; infinity where they are equal.

    Raises:
        BIRError: other proportions.
    """
    _require_same(image, lq)
    return psnr(resize(image, lq.shape[-2], lq.shape[-1]).clamp(0, 1), lq)


def _require_same(image: Tensor, other: Tensor) -> None:
    sizes = [(each.shape[-2], each.shape[-1]) for each in (image, other)]
    require_same_proportions(sizes[0], sizes[1], "a picture to compare with")


def seam_score(image: Tensor, tile: int, overlap: int) -> Tensor:
    """Whether the borders of tiles show: the mean absolute step of luma across the lines at which
    tiles begin and end, over that between the `NEIGHBOURS` lines on both sides. 1: no seams; 2: the
    steps there are twice as large. Blocks of JPEG on the same lines count too. Steps only: a slow
    change of brightness from tile to tile, as wide blending makes of a seam, is `color_drift`.

    Args:
        image: (B, 3, H, W) in [0, 1], larger than a tile.
        tile, overlap: of the tiles in pixels of this image, as in `tiling.tile_starts`.

    Returns:
        (B,) float64; infinity where steps are at borders only.

    Raises:
        BIRError: a wrong tile, a picture with a single one, or an overlap that makes a border of
            every line.
    """
    grey = luma(image.double())
    at_borders, beside = [], []
    for dim, along_lines in ((-2, -1), (-1, -2)):
        length = image.shape[dim]
        # Step i lies between the lines i and i + 1.
        steps = grey.diff(dim=dim).abs().mean(dim=(1, along_lines))
        starts = tile_starts(length, tile, overlap)
        first_lines = {*starts, *(start + tile for start in starts)}
        borders = {line - 1 for line in first_lines if 0 < line < length}
        near = {
            border + offset for border in borders for offset in range(-NEIGHBOURS, NEIGHBOURS + 1)
        }
        others = {line for line in near - borders if 0 <= line < length - 1}
        at_borders.append(steps[:, sorted(borders)])
        beside.append(steps[:, sorted(others)])
    seams, usual = torch.cat(at_borders, 1), torch.cat(beside, 1)
    if seams.shape[1] == 0:
        raise BIRError(
            f"Expected a picture of more than one tile of {tile} pixels to look for seams, but "
            f"{image.shape[-1]} x {image.shape[-2]} came; choose a smaller tile."
        )
    if usual.shape[1] == 0:
        raise BIRError(
            "Expected lines between the borders of the tiles to compare with, but with tiles of "
            f"{tile} and an overlap of {overlap} pixels there are none; choose a smaller overlap."
        )
    across, usually = seams.mean(1), usual.mean(1)
    return torch.where(across == usually, 1.0, across / usually)
