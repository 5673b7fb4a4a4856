"""Pictures of real damage, which a user has: shapes, bright on black."""

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ..errors import BIRError
from ..images import resize
from .draws import uniform

# Pictures that are kept in memory, a byte for each pixel.
MOST = 256


@lru_cache(maxsize=1)
def read_outlines(folder: str) -> tuple[Tensor, ...]:
    """The PNG files of a folder as coverage (h, w) uint8, the strongest channel of each.

    Raises:
        BIRError: no such folder, or none in it.
    """
    from ..pictures.files import read_picture

    paths = sorted(Path(folder).glob("*.png"))[:MOST]
    if not paths:
        raise BIRError(
            f"Expected PNG files in {folder} that show damage bright on black, but there are none; "
            'correct `outlines`, or set it to "".'
        )
    pictures = (read_picture(path).image[0].amax(0) for path in paths)
    return tuple((picture * 255).round().to(torch.uint8) for picture in pictures)


def draw_outlines(folder: str, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Coverage (H, W) in [0, 1] of a picture by a part of one of them, enlarged or reduced, flipped
    and turned; where it ends there is none.

    Raises:
        BIRError: as `read_outlines`.
    """
    pictures = read_outlines(folder)
    whole = pictures[int(torch.randint(len(pictures), (), generator=generator))]
    flips = (torch.rand(3, generator=generator) < 0.5).tolist()
    whole = whole.flip([axis for axis in (0, 1) if flips[axis]])
    whole = whole.T if flips[2] else whole
    factor = uniform((0.5, 1.5), generator)
    corner = torch.rand(2, generator=generator).tolist()
    part = whole
    for axis, side in enumerate(size):
        wanted = max(1, round(side / factor))
        start = round(corner[axis] * max(part.shape[axis] - wanted, 0))
        part = part.narrow(axis, start, min(wanted, part.shape[axis] - start))
    rows = min(size[0], max(1, round(part.shape[0] * factor)))
    columns = min(size[1], max(1, round(part.shape[1] * factor)))
    coverage = torch.zeros(size)
    top, left = round(corner[1] * (size[0] - rows)), round(corner[0] * (size[1] - columns))
    enlarged = resize(part[None, None].float() / 255, rows, columns, "bilinear")[0, 0]
    coverage[top : top + rows, left : left + columns] = enlarged
    return coverage
