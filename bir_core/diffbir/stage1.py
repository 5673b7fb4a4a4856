"""Stage 1 of DiffBIR: a restoration module removes the degradation, before stage 2 invents detail.

The official code enlarges, pads and restores in an order that depends on task and version; here the
order is a table, and any network that restores images can stand in for the official ones.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..errors import BIRError
from ..fallbacks import Attempt, first_that_fits, halved
from ..images import PadMode, crop, keep_grey, pad_to_multiple, require_finite, resize
from ..latents import PADDED_MULTIPLE
from ..tiling import SMALLEST_TILE, Tile, tiled_apply, tiles
from .versions import Order

Size = tuple[int, int]  # height, width in pixels

SHORT_SIDE = 512  # the smallest picture that stage 2 was trained on
LONGEST_SIDE = 16384


@dataclass(frozen=True)
class Stage1Sizes:
    """Heights and widths in pixels on the way through stage 1.

    Attributes:
        network: what the network sees.
        condition: the result, which stage 2 restores at.
        output: what the user asked for; the final picture returns to it.
    """

    network: Size
    condition: Size
    output: Size


def with_short_side(size: Size, short_side: int) -> Size:
    """A size enlarged, if need be, until its smaller side is `short_side` pixels; the other is
    rounded down.

    Raises:
        BIRError: the other side would be longer than 16384.
    """
    height, width = size
    if min(size) >= short_side:
        return size
    factor = short_side / min(size)
    enlarged = (
        short_side if height <= width else int(height * factor),
        short_side if width <= height else int(width * factor),
    )
    if max(enlarged) > LONGEST_SIDE:
        raise BIRError(
            f"A picture of {height} x {width} should stay within {LONGEST_SIDE} pixels when its "
            f"short side is enlarged to {short_side}, but it would become {enlarged[0]} x "
            f"{enlarged[1]}; crop it, or set the short side to 0."
        )
    return enlarged


def stage1_sizes(
    height: int,
    width: int,
    order: Order,
    upscale_by: float = 1.0,
    short_side: int = SHORT_SIDE,
) -> Stage1Sizes:
    """The official sizes for a picture of (height, width) pixels.

    Args:
        upscale_by: output side divided by input side; fractions of a pixel are dropped.
        short_side: least pixels of the condition's smaller side; 0 for no such bound.

    Raises:
        BIRError: an empty picture, an upscale_by that leaves nothing, or a side above 16384 that
            only the short side asks for.
    """
    output = (int(height * upscale_by), int(width * upscale_by))
    if min(height, width, *output) < 1:
        raise BIRError(
            f"A picture should have at least 1 x 1 pixels before and after its resizing, but "
            f"{height} x {width} times {upscale_by:g} came; choose a larger factor."
        )
    condition = with_short_side(output, short_side)
    network = {"enlarge_first": condition, "restore_first": output}.get(order, (height, width))
    return Stage1Sizes(network, condition, output)


def automatic_overlap(tile: int) -> int:
    """A quarter of the tile, in pixels."""
    return tile // 4


def restore_stage1(
    image: Tensor,
    network: Callable[[Tensor], Tensor],
    order: Order,
    sizes: Stage1Sizes,
    *,
    scale: int = 1,
    tile: int = 0,
    overlap: int = 0,
    padding: PadMode = "reflect",
    callback: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Remove the degradation of one or more pictures of equal size.

    The official code with tiles enlarges the short side after the network instead of before it;
    here the order does not depend on the tiles.

    Args:
        image: (B, 3, H, W) in [0, 1].
        network: restores (B, 3, h, w) to (B, 3, h scale, w scale).
        order, sizes: from `official_order` and `stage1_sizes`. Only with "enlarge_first" is the
            network's input padded, to a multiple of 64; the other official networks do it inside.
        scale: enlargement by the network.
        tile: side of the pieces in pixels of the network's input, a multiple of 64; 0 for none.
        overlap: pixels that neighbours share, blended with Gaussian weights; 0 for a quarter.
        padding: right and bottom; "reflect", or "black" as in the official code.
        callback: told (tiles done, tiles in all); may raise to cancel.

    Returns:
        (B, 3, *sizes.condition), not clamped; grey where the image is.

    Raises:
        BIRError: a wrong tile, an output of the network that is of another size than the scale
            says or not finite, or memory that does not do for the smallest tile of 64 pixels
            either.
    """
    if tile % SMALLEST_TILE:
        raise BIRError(
            f"The tile of stage 1 should be a multiple of {SMALLEST_TILE} pixels, but {tile} came; "
            f"choose {max(SMALLEST_TILE, round(tile / SMALLEST_TILE) * SMALLEST_TILE)}."
        )
    x = image
    if order != "network_enlarges":
        # In two steps as in the official code, which makes a picture file's 8 bits of the first.
        x = _resized(_resized(x, sizes.output).clamp(0, 1), sizes.network)
    if order == "enlarge_first":
        x = pad_to_multiple(x, PADDED_MULTIPLE, padding)
    height, width = x.shape[-2:]
    limit = tile or max(height, width)
    total = len(tiles(height, width, limit, _overlap(overlap, limit)))
    done = 0

    def run(piece: Tensor) -> Tensor:
        side = max(piece.shape[-2:])

        def in_tiles() -> Tensor:
            shared = _overlap(overlap, limit)
            return tiled_apply(lambda part, _: run(part), piece, limit, shared, scale)

        def attempts() -> Iterator[Attempt[Tensor]]:
            nonlocal limit
            yield "", lambda: _of_scale(network(piece), piece, scale)
            if side > SMALLEST_TILE:
                limit = halved(side)
                yield f"going on with tiles of {limit} pixels in stage 1", in_tiles

        if side > limit:
            return in_tiles()
        return first_that_fits(
            attempts(),
            f"Stage 1 should have memory for a tile of at least {SMALLEST_TILE} pixels, but even "
            "that did not fit; close other programs or choose a smaller restoration module.",
        )

    def step(piece: Tensor, _: Sequence[Tile]) -> Tensor:
        nonlocal done
        restored = run(piece)
        done += 1
        if callback is not None:
            callback(done, total)
        return restored

    restored = tiled_apply(step, x, limit, _overlap(overlap, limit), scale)
    restored = crop(restored, sizes.network[0] * scale, sizes.network[1] * scale)
    require_finite(restored, "The result of stage 1")
    return keep_grey(_resized(restored, sizes.condition), image)


def _of_scale(restored: Tensor, piece: Tensor, scale: int) -> Tensor:
    """The output of a network, whose sides are `scale` times those of its input."""
    height, width = piece.shape[-2:]
    expected = (*piece.shape[:2], height * scale, width * scale)
    if tuple(restored.shape) != expected:
        raise BIRError(
            f"Stage 1 should give images of shape {expected}, {scale} times the size of its input, "
            f"but {tuple(restored.shape)} came; state the model's scale, or choose another model."
        )
    return restored


def _resized(image: Tensor, size: Size) -> Tensor:
    return image if tuple(image.shape[-2:]) == size else resize(image, *size)


def _overlap(chosen: int, tile: int) -> int:
    """The overlap for tiles of a side, the user's unless they became too small for it."""
    if chosen and chosen < tile:
        return chosen
    return automatic_overlap(tile)
