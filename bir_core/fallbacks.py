"""Second tries of a stage: in smaller pieces where the memory runs out, in float32 where half
precision overflows."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from .errors import NotFinite, OutOfMemory
from .images import require_finite
from .memory import dtype_of, empty_caches, is_out_of_memory
from .tiling import SMALLEST_TILE

RAN_OUT = (
    "Restoring should have memory for the picture, but it ran out; close other programs, choose "
    "smaller strips or tiles, or take a smaller picture."
)

T = TypeVar("T")
# What the work goes on with, for the log, and that work; the words of a first attempt are not said.
Attempt = tuple[str, Callable[[], T]]

logger = logging.getLogger(__name__)


def first_that_fits(attempts: Iterable[Attempt[T]], otherwise: str) -> T:
    """What the first attempt gives that the memory does for.

    Args:
        attempts: in order. The next one is asked for only when the one before has run out of memory
            and its tensors are gone.
        otherwise: the sentence if none fits, unless the last one has a sentence for it.

    Raises:
        OutOfMemory: no attempt fits.
    """
    failure: BaseException | None = None
    for words, run in attempts:
        if failure is not None:
            empty_caches()
            logger.warning("Out of memory: %s", words)
        try:
            return run()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # Without its frames, which would keep the tensors of the failure alive.
            failure = error.with_traceback(None)
    if isinstance(failure, OutOfMemory):
        raise failure
    raise OutOfMemory(otherwise) from failure


@contextmanager
def enough_memory(otherwise: str = RAN_OUT) -> Iterator[None]:
    """Make a sentence of lack of memory for which there is no second try; also a decorator.

    Raises:
        OutOfMemory: `otherwise`, unless what ran out has a sentence for it.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, OutOfMemory) or not is_out_of_memory(error):
            raise
        failure = error.with_traceback(None)
    else:
        return
    raise OutOfMemory(otherwise) from failure


def or_in_float32(run: Callable[[], T], in_float32: Callable[[], T] | None, precision: object) -> T:
    """What `run` gives, or `in_float32` if half precision overflows in it.

    Args:
        run: raises NotFinite for a result with NaN or infinity, see `images.require_finite`.
        in_float32: the same in float32; None if that is what `run` computes in.
        precision: of `run`, for the log.

    Raises:
        NotFinite: in float32 as well.
    """
    try:
        return run()
    except NotFinite as error:
        if in_float32 is None:
            raise
        what = error.what
    # Outside of the except block, which would keep the tensors of the failure alive.
    logger.warning("%s is not finite in %s: repeating in float32", what, precision)
    return in_float32()


def finite(name: str, run: Callable[[], Tensor], networks: list[nn.Module]) -> Tensor:
    """What a stage gives, repeated in float32 if half precision overflows in it.

    Args:
        name: of the result, for the sentence.
        run: the stage, in the type of the networks' weights.
        networks: those of the stage.

    Raises:
        NotFinite: numbers that are not finite in float32 either.
    """
    dtypes = [dtype_of(network) for network in networks]

    def checked() -> Tensor:
        result = run()
        require_finite(result, name)
        return result

    def widened() -> Tensor:
        try:
            for network in networks:
                network.float()
            return checked()
        finally:
            # Widening loses nothing, so these are the weights from before.
            for network, dtype in zip(networks, dtypes, strict=True):
                network.to(dtype)

    return or_in_float32(checked, None if set(dtypes) == {torch.float32} else widened, dtypes[0])


def whole_or_in_tiles(
    tile: int, whole: Callable[[], Tensor], tiled: Callable[[int], Tensor], smaller: int
) -> Tensor:
    """A stage as a whole for a tile of 0, else in tiles; in tiles of `smaller` also if the whole
    runs out of memory.

    Raises:
        OutOfMemory: the tiles do not fit either.
    """
    side = tile or smaller
    attempts: list[Attempt[Tensor]] = [] if tile else [("", whole)]
    attempts.append((f"going on with VAE tiles of {side} pixels", partial(tiled, side)))
    return first_that_fits(
        attempts,
        "The VAE should have memory for the picture, but it ran out; close other programs, or "
        "take a smaller picture.",
    )


def in_fitting_strips(run: Callable[[int], Tensor], strip: int) -> Tensor:
    """What `run` gives for strips of `strip` rows, or half as many, for as long as the memory runs
    out.

    Raises:
        OutOfMemory: not even a single row fits.
    """

    def attempts() -> Iterator[Attempt[Tensor]]:
        rows = strip
        while rows:
            yield f"going on with strips of {rows} rows", partial(run, rows)
            rows //= 2

    return first_that_fits(
        attempts(),
        "Restoring should have memory for a strip of 1 row, but even that did not fit; close other "
        "programs, use half precision, or take a smaller picture.",
    )


def halved(side: int) -> int:
    """Half the side of a tile in pixels, a multiple of the smallest one and not below it."""
    return max(SMALLEST_TILE, side // 2 // SMALLEST_TILE * SMALLEST_TILE)


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
        OutOfMemory: not even a single tile of 64 pixels fits.
    """

    def attempts() -> Iterator[Attempt[Tensor]]:
        # A tile that is larger than the picture is the whole picture.
        side, chosen, batch = min(tile or longest, longest), tile, tile_batch
        yield "", partial(sample, chosen, batch)
        while batch > 1 or side > SMALLEST_TILE:
            if batch > 1:
                batch //= 2
            else:
                chosen = side = halved(side)
            words = f"sampling again with tiles of {side} pixels, {batch} at a time"
            yield words, partial(sample, chosen, batch)

    return first_that_fits(
        attempts(),
        f"The sampling should have memory for a tile of {SMALLEST_TILE} pixels, but even that did "
        "not fit; close other programs, use half precision, or guidance in latents instead of rgb.",
    )
