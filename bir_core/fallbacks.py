"""Second tries of a stage: in float32 where half precision overflows, in smaller pieces where the
memory runs out."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .errors import BIRError
from .images import is_finite, require_finite
from .memory import dtype_of, is_out_of_memory
from .tiling import SMALLEST_TILE

logger = logging.getLogger(__name__)


def finite(name: str, run: Callable[[], Tensor], networks: list[nn.Module]) -> Tensor:
    """What a stage gives, repeated in float32 if half precision overflows in it.

    Args:
        name: of the result, for the sentence.
        run: the stage, in the type of the networks' weights.
        networks: those of the stage.

    Raises:
        BIRError: numbers that are not finite in float32 either.
    """
    result = run()
    dtypes = [dtype_of(network) for network in networks]
    if not is_finite(result) and set(dtypes) != {torch.float32}:
        logger.warning("%s is not finite in %s: repeating in float32", name, dtypes[0])
        try:
            for network in networks:
                network.float()
            result = run()
        finally:
            # Widening loses nothing, so these are the weights from before.
            for network, dtype in zip(networks, dtypes, strict=True):
                network.to(dtype)
    require_finite(result, name)
    return result


def whole_or_in_tiles(
    tile: int, whole: Callable[[], Tensor], tiled: Callable[[int], Tensor], smaller: int
) -> Tensor:
    """A stage as a whole for a tile of 0, else in tiles; in tiles of `smaller` also if the whole
    runs out of memory."""
    if tile:
        return tiled(tile)
    try:
        return whole()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside of the except block, which would keep the tensors of the failure alive.
    logger.warning("Out of memory: going on with VAE tiles of %d pixels", smaller)
    return tiled(smaller)


def in_fitting_strips(run: Callable[[int], Tensor], strip: int) -> Tensor:
    """What `run` gives for strips of `strip` rows, or half as many, for as long as the memory runs
    out; that of a single row is raised."""
    while True:
        try:
            return run(strip)
        except (RuntimeError, MemoryError) as error:
            if strip == 1 or not is_out_of_memory(error):
                raise
        # Outside of the except block, which would keep the tensors of the failure alive.
        strip //= 2
        logger.warning("Out of memory: going on with strips of %d rows", strip)


def in_fitting_tiles(
    sample: Callable[[int, int], Tensor], longest: int, tile: int, tile_batch: int
) -> Tensor:
    """The sampling, repeated with half as many tiles at a time, then with tiles of half the side,
    for as long as the memory runs out.

    Args:
        sample: (tile, tile_batch) -> result; a tile of 0 is the whole picture.
        longest: side of the picture in pixels.
        tile, tile_batch: of the first try.

    Raises:
        BIRError: not even a single tile of 64 pixels fits.
    """
    # A tile that is larger than the picture is the whole picture.
    side = min(tile or longest, longest)
    while True:
        try:
            return sample(tile, tile_batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if side <= SMALLEST_TILE and tile_batch == 1:
                raise BIRError(
                    f"The sampling should have memory for a tile of {SMALLEST_TILE} pixels, but "
                    "even that did not fit; close other programs, use half precision, or guidance "
                    "in latents instead of rgb."
                ) from error
        # Outside of the except block, which would keep the tensors of the failure alive.
        if tile_batch > 1:
            tile_batch //= 2
        else:
            tile = side = max(SMALLEST_TILE, side // 2 // SMALLEST_TILE * SMALLEST_TILE)
        logger.warning(
            "Out of memory: sampling again with tiles of %d pixels, %d at a time", side, tile_batch
        )
