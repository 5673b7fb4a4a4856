"""A piece of a picture, to try settings on before the long run.

What it is restored from and its noise are those of its place in the whole picture, so it shows what
the whole will be there; the VAE, the attention of the networks and neighbouring tiles see no
further than the piece, and near its edges it may differ."""

import math
from dataclasses import dataclass

from ..errors import BIRError
from ..latents import LATENT_FACTOR, PADDED_MULTIPLE
from ..tiling import Tile

SIDE = 512


@dataclass(frozen=True)
class Piece:
    """A square, by its middle and its side.

    Attributes:
        y, x: the middle, as parts of the picture's height and width; it is moved so that the piece
            lies within the picture.
        side: in pixels of the picture that stage 2 restores; rounded up to a multiple of 64.
    """

    y: float
    x: float
    side: int = SIDE

    def __post_init__(self) -> None:
        if self.side < 1 or not (math.isfinite(self.y) and math.isfinite(self.x)):
            raise BIRError(
                "A piece to try should have a place and at least 1 pixel, but the middle "
                f"{self.x:g}, {self.y:g} and the side {self.side} came; choose others."
            )

    def tile(self, height: int, width: int) -> Tile:
        """The piece of a picture of (height, width) pixels that is padded to multiples of 64. Its
        corners too are multiples of 64 pixels, those at which the networks halve a latent: there
        they compute what they compute of the whole."""
        top, rows = _span(self.y, self.side, height)
        left, columns = _span(self.x, self.side, width)
        return Tile(top, left, rows, columns)


def _span(middle: float, side: int, length: int) -> tuple[int, int]:
    """First pixel and length of a piece along an axis."""
    unit = PADDED_MULTIPLE
    padded = math.ceil(length / unit) * unit
    taken = min(math.ceil(side / unit) * unit, padded)
    start = round((middle * length - taken / 2) / unit) * unit
    return min(max(start, 0), padded - taken), taken


def piece_around(box: Tile, height: int, width: int, side: int = SIDE) -> Piece:
    """The piece whose middle is that of a box on a picture of (height, width) pixels, of any
    enlargement."""
    return Piece((box.y + box.height / 2) / height, (box.x + box.width / 2) / width, side)


def piece_at(left: int, top: int, side: int, height: int, width: int) -> Piece:
    """The piece by its top left corner in pixels of a picture of (height, width).

    Raises:
        BIRError: a corner outside of the picture.
    """
    if not (0 <= left < width and 0 <= top < height):
        raise BIRError(
            f"A piece to try should begin within the result, {width} x {height} pixels, but "
            f"{left},{top} came; choose a corner inside."
        )
    return piece_around(Tile(top, left, side, side), height, width, side)


def whole_of(height: int, width: int) -> Tile:
    """The padded picture itself."""
    return Piece(0, 0, max(height, width)).tile(height, width)


def seen(tile: Tile, height: int, width: int) -> Tile:
    """The part of a tile of the padded picture that is no padding."""
    return Tile(tile.y, tile.x, min(tile.height, height - tile.y), min(tile.width, width - tile.x))


def in_latents(tile: Tile) -> Tile:
    """A tile of the padded picture in pixels of its latent."""
    return Tile(*(number // LATENT_FACTOR for number in tile))


def resized_tile(tile: Tile, size: tuple[int, int], new: tuple[int, int]) -> Tile:
    """A tile of a picture (height, width) in one of another size; a whole one stays whole."""
    top, bottom = (round(y * new[0] / size[0]) for y in (tile.y, tile.y + tile.height))
    left, right = (round(x * new[1] / size[1]) for x in (tile.x, tile.x + tile.width))
    return Tile(top, left, max(1, bottom - top), max(1, right - left))


def guidance_of_piece(scale: float, tile: Tile, whole: Tile) -> float:
    """What pulls on each pixel of a piece as `scale` does in the whole picture, where it is meant
    for that picture: the loss is a mean over what is sampled."""
    return scale * (tile.height * tile.width / (whole.height * whole.width))
