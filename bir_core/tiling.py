"""Apply a function to a large picture or latent tile by tile and blend the results.

The one place where pictures are cut into overlapping tiles. (The VAE has an exact way of its own,
`exact_vae/passes.py`, and DiffIR needs no tiles.)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .errors import BIRError
from .latents import LATENT_FACTOR, PADDED_MULTIPLE
from .memory import sent

TileWeights = Literal["gaussian", "official", "uniform"]

# Pixels of a picture: halving a tile that does not fit ends here.
SMALLEST_TILE = 64
# Variance of the Gaussian in units of the squared tile side, as in DiffBIR.
GAUSSIAN_VARIANCE = 0.01


class Tile(NamedTuple):
    """A rectangle of a tensor (..., H, W): its top left corner and its size."""

    y: int
    x: int
    height: int
    width: int

    def crop(self, tensor: Tensor) -> Tensor:
        """This part of a tensor (..., H, W), a view."""
        return tensor[..., self.y : self.y + self.height, self.x : self.x + self.width]


def on_canvas(part: Tensor, tile: Tile, height: int, width: int) -> Tensor:
    """A part (..., h, w) at its place in a tensor (..., height, width) that is 0 elsewhere."""
    canvas = part.new_zeros(*part.shape[:-2], height, width)
    tile.crop(canvas).copy_(part)
    return canvas


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """First positions of the tiles along an axis: every `tile - overlap`, and the last tile ends
    with the axis.

    Raises:
        BIRError: a tile below 1, or an overlap that is negative or not smaller than the tile.
    """
    if tile < 1 or not 0 <= overlap < tile:
        raise BIRError(
            "A tile should be at least 1 wide and its overlap from 0 to below its width, but a "
            f"tile of {tile} and an overlap of {overlap} came; choose a smaller overlap."
        )
    if length <= tile:
        return [0]
    last = length - tile
    starts = list(range(0, last + 1, tile - overlap))
    return starts if starts[-1] == last else [*starts, last]


def tiles(height: int, width: int, tile: int, overlap: int) -> list[Tile]:
    """All tiles of a tensor (..., height, width), row by row. An axis shorter than the tile is
    covered by one tile of its length. Units are those of the tensor."""
    return [
        Tile(y, x, min(tile, height), min(tile, width))
        for y in tile_starts(height, tile, overlap)
        for x in tile_starts(width, tile, overlap)
    ]


@dataclass(frozen=True)
class TileGrid:
    """The tiles of a tensor (..., height, width), in its units, as `tiles` gives them.

    Raises:
        BIRError: a wrong tile or overlap, as for `tile_starts`.
    """

    height: int
    width: int
    tile: int
    overlap: int

    def __post_init__(self) -> None:
        tile_starts(self.tile, self.tile, self.overlap)

    @property
    def tiles(self) -> list[Tile]:
        return tiles(self.height, self.width, self.tile, self.overlap)

    @property
    def columns(self) -> int:
        return len(tile_starts(self.width, self.tile, self.overlap))

    @property
    def rows(self) -> int:
        return len(tile_starts(self.height, self.tile, self.overlap))

    @property
    def count(self) -> int:
        return self.columns * self.rows

    def __str__(self) -> str:
        if self.count == 1:
            return "1 tile"
        return f"{self.count} tiles ({self.columns} columns x {self.rows} rows, row by row)"

    def nearest(self, tile: Tile) -> int:
        """The number of the tile whose middle is nearest to that of another one."""

        def distance(number: int) -> int:
            own = plan[number]
            down = 2 * (own.y - tile.y) + own.height - tile.height
            right = 2 * (own.x - tile.x) + own.width - tile.width
            return down**2 + right**2

        plan = self.tiles
        return min(range(len(plan)), key=distance)

    def in_pixels(self) -> "TileGrid":
        """The grid of the picture, of this one of its latent."""
        return TileGrid(
            self.height * LATENT_FACTOR,
            self.width * LATENT_FACTOR,
            self.tile * LATENT_FACTOR,
            self.overlap * LATENT_FACTOR,
        )


def latent_grid(height: int, width: int, tile: int, overlap: int) -> TileGrid:
    """The tiles in which the latent of a picture is sampled.

    Args:
        height, width: of the picture, which is continued to multiples of 64.
        tile, overlap: in pixels, rounded down to multiples of 8; a tile of 0 is the whole picture.

    Raises:
        BIRError: a wrong tile or overlap.
    """
    rows, columns = ((side + -side % PADDED_MULTIPLE) // LATENT_FACTOR for side in (height, width))
    if not tile:
        return TileGrid(rows, columns, max(rows, columns), 0)
    return TileGrid(rows, columns, tile // LATENT_FACTOR, overlap // LATENT_FACTOR)


def _gaussian(length: int, centre: float) -> Tensor:
    position = torch.arange(length, dtype=torch.float64)
    spread = 2 * GAUSSIAN_VARIANCE
    return torch.exp(-((position - centre) ** 2) / (length**2 * spread)) / math.sqrt(
        spread * math.pi
    )


def tile_weights(height: int, width: int, kind: TileWeights = "gaussian") -> Tensor:
    """Blending weights of a tile, (height, width) float64, all positive.

    Args:
        kind: "gaussian": largest in the centre of the tile; "official": the same, but half a pixel
            too low, as DiffBIR has it; "uniform": all 1, a plain average as in DiffBIR v1.
    """
    if kind == "uniform":
        return torch.ones(height, width, dtype=torch.float64)
    centre_y = height / 2 if kind == "official" else (height - 1) / 2
    return _gaussian(height, centre_y)[:, None] * _gaussian(width, (width - 1) / 2)


def tiled_apply(
    fn: Callable[[Tensor, Sequence[Tile]], Tensor],
    x: Tensor,
    tile: int,
    overlap: int,
    scale: int = 1,
    weights: TileWeights = "gaussian",
    tile_batch: int = 1,
) -> Tensor:
    """Weighted mean of fn over overlapping tiles.

    Args:
        fn: (pieces (n B, C, h, w), the n tiles they were cut from) -> (n B, C', h scale, w scale);
            piece i B + b is tile i of sample b. Other tensors are cut with `Tile.crop`. Its output
            for a piece must not depend on the other pieces.
        x: (B, C, H, W), any size.
        tile, overlap: sides of a tile and of what neighbours share, in units of x.
        scale: enlargement by fn.
        weights: see `tile_weights`.
        tile_batch: how many tiles go into one call; it and the order of the tiles change the
            result by rounding only.

    Returns:
        (B, C', H scale, W scale) in the type of fn's output. Where one tile covers x, fn's output
        as it is.

    Raises:
        BIRError: a wrong tile, overlap or tile_batch.
    """
    if tile_batch < 1:
        raise BIRError(
            f"At least one tile should be in a batch of tiles, but {tile_batch} came; "
            "choose 1 or more."
        )
    batch, _, height, width = x.shape
    plan = tiles(height, width, tile, overlap)
    if len(plan) == 1:
        return fn(x, plan)
    # Sums in float32: weights fall below what half precision can hold.
    total_weight = x.new_zeros(height * scale, width * scale, dtype=torch.float32)
    weight = tile_weights(plan[0].height * scale, plan[0].width * scale, weights)
    weight = sent(weight, total_weight)
    total = None
    dtype = x.dtype
    for first in range(0, len(plan), tile_batch):
        chosen = plan[first : first + tile_batch]
        pieces = fn(torch.cat([piece.crop(x) for piece in chosen]), chosen)
        dtype = pieces.dtype
        if total is None:
            total = total_weight.new_zeros(batch, pieces.shape[1], *total_weight.shape)
        for piece, output in zip(chosen, torch.split(pieces, batch), strict=True):
            target = Tile(*(scale * number for number in piece))
            target.crop(total).add_(output * weight)
            target.crop(total_weight).add_(weight)
    assert total is not None  # a plan has at least one tile
    return total.div_(total_weight).to(dtype)


def split_tiles(pictures: Tensor, grid: TileGrid) -> Tensor:
    """Pictures (B, C, height, width) to their tiles (B n, C, h, w): those of the first picture in
    the order of the grid, then those of the next."""
    pieces = [piece.crop(pictures) for piece in grid.tiles]
    return torch.stack(pieces, dim=1).flatten(0, 1)


def join_tiles(
    batches: Sequence[Tensor], grid: TileGrid, pictures: int, weights: TileWeights = "gaussian"
) -> Tensor:
    """Tiles back into their pictures; where they overlap, the weighted mean of `tiled_apply`.
    Where overlapping tiles are equal, it is what they are, to the bit.

    Args:
        batches: all tiles in the order of `split_tiles`, each batch (n, C, h scale, w scale); the
            scale is any whole number.
        pictures: how many they were cut from.

    Returns:
        (pictures, C, height scale, width scale).

    Raises:
        BIRError: another number of tiles, or tiles of another size.
    """
    plan = grid.tiles
    count = sum(len(each) for each in batches)
    if count != pictures * len(plan):
        each_of = "The picture" if pictures == 1 else f"Each of {pictures} pictures"
        raise BIRError(
            f"{each_of} should come back in {grid}, but {count} came in all; join all of them, in "
            "their order."
        )
    sizes = sorted({tuple(each.shape[-2:]) for each in batches})
    scale = sizes[0][1] // plan[0].width
    if not scale or sizes != [(plan[0].height * scale, plan[0].width * scale)]:
        found = " and ".join(f"{width} x {height}" for height, width in sizes)
        raise BIRError(
            f"Tiles should come back with {plan[0].width} x {plan[0].height} pixels, or all "
            f"enlarged by the same whole number, but {found} came; resize them before they are "
            "joined."
        )
    pieces = torch.cat(list(batches))
    channels = pieces.shape[1]
    of_picture = pieces.reshape(pictures, len(plan), *pieces.shape[1:])
    places = [Tile(*(scale * number for number in piece)) for piece in plan]
    joined = pieces.new_empty(pictures, channels, scale * grid.height, scale * grid.width)
    for index, place in enumerate(places):
        place.crop(joined).copy_(of_picture[:, index])

    # Of what tiles differ by, so that equal ones leave no rounding.
    def difference(_: Tensor, chosen: Sequence[Tile]) -> Tensor:
        index = plan.index(chosen[0])
        return of_picture[:, index] - places[index].crop(joined)

    whole = joined[:, :1, ::scale, ::scale]
    return joined + tiled_apply(difference, whole, grid.tile, grid.overlap, scale, weights)


class Progress:
    """Counts strips of all sweeps over all maps and tells a callback, which may raise to cancel."""

    def __init__(self, total: int, callback: Callable[[int, int], None] | None) -> None:
        self.total = total
        self.done = 0
        self.callback = callback

    def advance(self) -> None:
        self.done += 1
        if self.callback is not None:
            self.callback(self.done, self.total)
