"""Where a scan is scratched, creased, dusty or stained: from an image of any size to a mask."""

from collections.abc import Callable, Sequence
from functools import partial
from math import isqrt
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoints import load_model
from ..errors import BIRError
from ..fallbacks import RAN_OUT, enough_memory, finite, first_that_fits
from ..images import crop, pad_to_multiple, require_image
from ..memory import dtype_of
from ..networks.damage import DamageFinder
from ..tiling import SMALLEST_TILE, Progress, Tile, tiled_apply, tiles

# The one that comes with the package.
BUILTIN = "builtin-scratches"
# Side of the pieces that the network sees at a time, in pixels, and the share of it in which they
# overlap and fade into each other. The network sees up to 200 pixels far, so that a large scan is
# not to the last digit what it were in one piece.
TILE = 512
OVERLAP_SHARE = 4
# From this probability on a pixel is damaged, and so many pixels around it are taken with it: the
# soft edges of a scratch would show in what is filled.
THRESHOLD = 0.7
GROW = 2
# In which damage is shown, RGB, and how much of it.
SHOWN, OPACITY = (1.0, 0.1, 0.1), 0.65
# Bytes for a pixel of a tile in float32, of all levels; and for one of the picture: sums, weights
# of tiles, the result and its mask.
TILE_BYTES, PICTURE_BYTES = 320, 16

Callback = Callable[[int, int], None]


def load_finder(
    source: str | Path = BUILTIN, *, device: torch.device | str = "cpu"
) -> DamageFinder:
    """A network that finds damage.

    Args:
        source: its file, or the name of the one that comes with the package.

    Raises:
        BIRError: the file is none of such a network.
    """
    model = load_model(source, device=device, architecture="damage_finder")
    assert isinstance(model, DamageFinder)  # the architecture that was asked for
    return model


@enough_memory()
def find_damage(
    image: Tensor, model: nn.Module, *, tile: int = TILE, callback: Callback | None = None
) -> Tensor:
    """How likely each pixel is damaged. It works in overlapping tiles, so that a large scan takes
    hardly more memory than a small one.

    Args:
        image: (B, 3, H, W) in [0, 1], any H and W from 1 on; on the device of the model.
        model: from `load_finder`.
        tile: side of the tiles in pixels; halved where the memory does not do.
        callback: called with (tiles done, tiles in all); may raise to cancel.

    Returns:
        (B, 1, H, W) float32 in [0, 1], each image as if it were alone.

    Raises:
        BIRError: a model or an image of another kind, or a tile below 1.
    """
    if not isinstance(model, DamageFinder):
        raise BIRError(
            f"Expected a network that finds scratches, but a {type(model).__name__} came; load "
            "the file of one."
        )
    require_image(image)
    lq = image.to(dtype_of(model))
    sides = [tile]
    while sides[-1] // 2 >= SMALLEST_TILE:
        sides.append(sides[-1] // 2)

    def run() -> Tensor:
        attempts = (
            (f"going on in tiles of {side} pixels", partial(_found, lq, model, side, callback))
            for side in sides
        )
        return first_that_fits(attempts, RAN_OUT)

    return finite("The probability of damage", run, [model]).float()


@torch.no_grad()
def _found(image: Tensor, model: DamageFinder, tile: int, callback: Callback | None) -> Tensor:
    overlap = tile // OVERLAP_SHARE
    height, width = image.shape[-2:]
    progress = Progress(len(image) * len(tiles(height, width, tile, overlap)), callback)

    def probabilities(piece: Tensor, _: Sequence[Tile]) -> Tensor:
        padded = pad_to_multiple(piece, model.config.size_multiple)
        logits = model(padded.to(dtype_of(model)))
        progress.advance()
        return crop(logits, *piece.shape[-2:]).sigmoid()

    alone = (tiled_apply(probabilities, each[None], tile, overlap) for each in image)
    return torch.cat(list(alone))


def damage_mask(
    probability: Tensor,
    threshold: float = THRESHOLD,
    grow: int = GROW,
    widest: int | None = None,
) -> Tensor:
    """What is taken for damage.

    Args:
        probability: (B, 1, H, W), from `find_damage`.
        threshold: the least probability, above 0.
        grow: pixels around it that are taken with it.
        widest: in pixels, with what was grown; what is wider is left out. None: nothing is.

    Returns:
        (B, 1, H, W) float32, 1 where it is damaged, else 0.

    Raises:
        BIRError: a threshold outside of (0, 1], or a negative number of pixels.
    """
    if not (0 < threshold <= 1 and grow >= 0 and (widest is None or widest >= 0)):
        raise BIRError(
            "Expected a threshold above 0 and up to 1, and 0 or more pixels to grow by and at the "
            f"widest, but {threshold:g}, {grow} and {widest} came; correct them."
        )
    mask = grown((probability >= threshold).float(), grow)
    return mask if widest is None else _thin_part(mask, widest)


def _thin_part(mask: Tensor, widest: int) -> Tensor:
    """The part of a mask (B, 1, H, W) that is no wider than `widest` pixels."""
    radius = widest // 2
    cores = 1 - grown(1 - mask, radius)  # farther than the radius from what is whole
    return mask * (1 - grown(cores, radius + 1))


def grown(mask: Tensor, radius: int) -> Tensor:
    """A mask (B, 1, H, W) with all pixels whose distance to one of it is at most `radius`."""
    result = mask
    for row in range(-radius, radius + 1):
        half = isqrt(radius**2 - row**2)
        wide = F.max_pool2d(mask, (1, 2 * half + 1), 1, (0, half)) if half else mask
        moved = F.pad(wide, (0, 0, max(row, 0), max(-row, 0)))
        start = max(-row, 0)
        result = torch.maximum(result, moved[..., start : start + mask.shape[-2], :])
    return result


def shown_damage(image: Tensor, mask: Tensor) -> Tensor:
    """A picture (B, 3, H, W) in [0, 1] with red over what a mask (B, 1, H, W) says."""
    red = image.new_tensor(SHOWN).view(1, 3, 1, 1)
    return image + OPACITY * mask * (red - image)


def working_bytes(height: int, width: int, tile: int = TILE) -> float:
    """Memory that `find_damage` takes besides the weights for a picture, in bytes, about."""
    in_tile = min(height, tile) * min(width, tile)
    return float(TILE_BYTES * in_tile + PICTURE_BYTES * height * width)
