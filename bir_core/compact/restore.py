"""Exact inference of the compact restoration module, by strips of rows.

A chain of 3x3 convolutions knows a row as soon as the rows of its reach have come, so only the
strip in work lies in memory, and two rows of each layer's input. The result is that of the whole
picture up to rounding, for any size and any height of the strips.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..diffir.row_strips import (
    CorrectedOutput,
    RowStage,
    pixel_shuffle,
    run_stages,
    streamed_conv3x3,
    strip_count,
    strips_of,
)
from ..errors import BIRError
from ..fallbacks import enough_memory, finite, in_fitting_strips
from ..images import keep_grey, require_image
from ..memory import dtype_of, free_memory, picture_bytes, require_room
from ..networks.compact import CompactConfig, CompactRestorer
from ..tiling import Progress
from .memory_plan import compact_strips

Callback = Callable[[int, int], None]


@enough_memory()
def restore_compact(
    image: Tensor,
    model: nn.Module,
    *,
    strip: int | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Restore images of any size with a compact restoration module, in little memory.

    The work is done on the image's device in the dtype of the weights, which may lie on another
    device. If half precision overflows it is repeated in float32.

    Args:
        image: (B, 3, H, W) in [0, 1], any H and W from 1 on.
        model: a CompactRestorer, as from `load_model`.
        strip: rows of the image that are computed at a time; it changes the need for memory, and
            the result by rounding only. None chooses from the free memory.
        callback: called with (strips done, strips in all) after each strip; may raise to cancel.

    Returns:
        (B, 3, H scale, W scale), float32 in [0, 1], on the image's device; grey where the image is.

    Raises:
        BIRError: a model, image or strip of the wrong kind; NaN or infinity in the image, or in the
            result even in float32; no memory.
    """
    if not isinstance(model, CompactRestorer):
        raise BIRError(
            f"Expected a compact restoration module, but a {type(model).__name__} came; load the "
            "file of one."
        )
    require_image(image)
    if strip is not None and strip < 1:
        raise BIRError(f"A strip should have at least 1 row, but {strip} came; choose more.")

    batch, _, height, width = image.shape
    require_room(
        height,
        width,
        model.config.scale,
        lambda scale: picture_bytes(height, width, batch * scale**2),
        [image.device],
    )

    def run() -> Tensor:
        lq = image.to(dtype_of(model))
        if strip is not None:
            return stream(model, lq, strip=strip, callback=callback)
        batch, _, height, width = lq.shape
        needs = compact_strips(model.config, height, width, batch, lq.device.type)
        rows = needs.rows(free_memory(lq.device), lq.dtype)
        return in_fitting_strips(
            lambda fewer: stream(model, lq, strip=fewer, callback=callback), rows
        )

    restored = finite("The restored image", run, [model]).float()
    # In this order, as with the stock upscaler, which clamps before a node can take colours off.
    return keep_grey(restored.clamp_(0, 1), image)


@torch.no_grad()
def stream(
    model: CompactRestorer, lq: Tensor, *, strip: int, callback: Callback | None = None
) -> Tensor:
    """Restore images by strips; equals `model(lq)` up to rounding.

    Args:
        lq: (B, 3, H, W) in [0, 1].
        strip: rows at a time.
        callback: called with (strips done, strips in all) after each strip; may raise to cancel.

    Returns:
        (B, 3, H scale, W scale) like lq in dtype and device, not clamped.
    """
    batch, channels, height, width = lq.shape
    scale = model.config.scale
    progress = Progress(batch * strip_count(height, strip), callback)
    result = lq.new_empty(batch, channels, height * scale, width * scale)
    for image, target in zip(lq, result, strict=True):
        stages = _stages(model, height, image)
        output = CorrectedOutput(target, image)
        for rows in strips_of(image.permute(1, 2, 0), strip, progress):
            output.write(run_stages(stages, rows.contiguous()))
    return result


def _stages(model: CompactRestorer, height: int, like: Tensor) -> list[RowStage]:
    config: CompactConfig = model.config
    *chain, last = model.body
    return [
        *(_stage(layer, height, like) for layer in chain),
        streamed_conv3x3(last, height, like, shuffle=config.scale),
        lambda rows: pixel_shuffle(rows, config.scale),
    ]


def _stage(layer: nn.Module, height: int, like: Tensor) -> RowStage:
    if not isinstance(layer, nn.PReLU):
        return streamed_conv3x3(layer, height, like)
    slope = layer.weight.to(like)
    # Channels are the second axis for torch.
    return lambda rows: F.prelu(rows.movedim(-1, 1), slope).movedim(1, -1)
