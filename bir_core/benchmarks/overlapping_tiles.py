"""How other programs decode a large latent: in overlapping tiles whose borders are blended, three
times with tiles of different shapes, and the mean of the three. It is what the exact tiles are
measured against, and nothing else uses it."""

from collections.abc import Callable

from torch import Tensor

from ..latents import LATENT_FACTOR
from ..tiling import Tile, tile_starts


def decode_overlapping(
    decode: Callable[[Tensor], Tensor], latent: Tensor, *, tile: int, overlap: int
) -> Tensor:
    """Decode in square tiles, in ones twice as wide and half as high, and the other way round.

    Args:
        decode: (1, 4, h, w) -> (1, 3, 8 h, 8 w).
        latent: (1, 4, h, w).
        tile, overlap: in pixels; the overlap smaller than half the tile.

    Returns:
        (1, 3, 8 h, 8 w), near to the whole decode but not equal: each tile has its own statistics.
    """
    side, shared = tile // LATENT_FACTOR, overlap // LATENT_FACTOR
    shapes = ((side, side), (side // 2, 2 * side), (2 * side, side // 2))
    layouts = [_decode_layout(decode, latent, shape, shared) for shape in shapes]
    return (layouts[0] + layouts[1] + layouts[2]) / len(shapes)


def _decode_layout(
    decode: Callable[[Tensor], Tensor], latent: Tensor, shape: tuple[int, int], overlap: int
) -> Tensor:
    sides = [min(side, whole) for side, whole in zip(shape, latent.shape[-2:], strict=True)]
    height, width = (LATENT_FACTOR * side for side in latent.shape[-2:])
    total = latent.new_zeros(1, 3, height, width)
    weights = latent.new_zeros(height, width)
    ramps = [_ramp(latent, side, overlap) for side in sides]
    weight = ramps[0][:, None] * ramps[1]
    for y in tile_starts(latent.shape[-2], sides[0], overlap):
        for x in tile_starts(latent.shape[-1], sides[1], overlap):
            tile = Tile(y, x, *sides)
            pixels = Tile(*(LATENT_FACTOR * number for number in tile))
            pixels.crop(total).add_(decode(tile.crop(latent)) * weight)
            pixels.crop(weights).add_(weight)
    return total / weights


def _ramp(like: Tensor, side: int, overlap: int) -> Tensor:
    """Weights along a side of a tile in pixels: 1 inside, falling towards both ends."""
    length, border = LATENT_FACTOR * side, LATENT_FACTOR * overlap
    position = like.new_ones(length).cumsum(0)
    return (position.minimum(position.flip(0)) / max(border, 1)).clamp(max=1)
