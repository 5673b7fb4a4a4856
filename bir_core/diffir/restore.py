"""From an image of any size to the restored image."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import BIRError
from ..fallbacks import enough_memory, in_fitting_strips, or_in_float32
from ..images import crop, keep_grey, pad_to_multiple, require_finite, require_image
from ..memory import dtype_of, free_memory, picture_bytes, require_room
from ..networks.diffir import DiffIRStage2
from ..networks.diffir_config import DiffIRConfig
from ..networks.diffir_prior import IPR_LENGTH, draw_noise
from .memory_plan import diffir_strips
from .rough_filling import fill_roughly
from .streaming import stream

Callback = Callable[[int, int], None]

# Of a mask in [0, 1], a soft one or one that was JPEG, everywhere.
HOLE_FROM = 0.5


@enough_memory()
def restore(
    image: Tensor,
    model: nn.Module,
    *,
    mask: Tensor | None = None,
    seed: int = 0,
    noise: Tensor | None = None,
    strip: int | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Restore images of any size with a DiffIR stage 2, exactly and in little memory.

    The work is done on the image's device in the dtype of the weights, which may lie on another
    device. If half precision overflows it is repeated in float32.

    Args:
        image: (B, 3, H, W) in [0, 1], any H and W from 1 on.
        model: a DiffIRStage2, as from `load_model`.
        mask: for inpainting, (B, 1, H, W) or (1, 1, H, W); what is 0.5 or more is the hole. What is
            outside of it is returned unchanged.
        seed: image i draws its noise from a CPU generator seeded `seed + i`.
        noise: Z_T, (B, 256) standard normal, instead of the seed.
        strip: rows of the working grid (image pixels divided by 1, or 2 or 4 for models of scale 2
            and 1) that are computed at a time; it changes the need for memory, and the result by
            rounding only. None chooses from the free memory.
        callback: called with (strips done, strips in all) after each strip; may raise to cancel.

    Returns:
        (B, 3, H * scale, W * scale), float32 in [0, 1], on the image's device; grey where the image
        is.

    Raises:
        BIRError: a model, image, mask, noise or strip of the wrong kind; NaN or infinity in the
            image, or in the result even in float32; no memory.
    """
    if not isinstance(model, DiffIRStage2):
        raise BIRError(
            f"Restoring needs a DiffIR stage 2, but a {type(model).__name__} came; "
            "load a DiffIR stage 2 file."
        )
    config = model.config
    require_image(image)
    mask = _hole(mask, image, config)
    batch, _, height, width = image.shape
    if noise is None:
        noise = draw_noise(batch, seed)
    elif noise.shape != (batch, IPR_LENGTH):
        raise BIRError(
            f"The noise should have the shape {(batch, IPR_LENGTH)}, but {tuple(noise.shape)} "
            "came; give one row for each image."
        )
    if strip is not None and strip < 1:
        raise BIRError(f"A strip should have at least 1 row, but {strip} came; choose more.")

    # The padded image, and the result with a copy where padding is cropped.
    require_room(
        height,
        width,
        config.scale,
        lambda scale: picture_bytes(height, width, batch * (1 + scale**2)),
        [image.device],
    )
    lq = image.float()
    if mask is None:
        lq = pad_to_multiple(lq, config.size_multiple, "reflect")
    else:
        lq = fill_roughly(lq, mask) if config.corrects else lq * (1 - mask)
        masked = torch.cat([lq, mask], dim=1)
        lq = pad_to_multiple(masked, config.size_multiple, "symmetric")
    restored = _stream(model, lq, noise, strip, callback).float()
    restored = crop(restored, height * config.scale, width * config.scale)
    if mask is not None:
        restored = mask * restored + (1 - mask) * image
    return keep_grey(restored, image).clamp_(0, 1).contiguous()


def _hole(mask: Tensor | None, image: Tensor, config: DiffIRConfig) -> Tensor | None:
    """The mask as float32 zeros and ones like the image, None for a model that takes none."""
    if config.task != "inpainting":
        if mask is not None:
            raise BIRError(
                f"A DiffIR for {config.task} takes no mask, but one came; "
                "leave it out or load a DiffIR for inpainting."
            )
        return None
    if mask is None:
        raise BIRError(
            "A DiffIR for inpainting expects a mask, but none came; give one that is 1 in the hole."
        )
    batch, _, height, width = image.shape
    if mask.shape not in ((batch, 1, height, width), (1, 1, height, width)):
        raise BIRError(
            f"The mask should have the shape {(batch, 1, height, width)} of the image, but "
            f"{tuple(mask.shape)} came; resize it to the image."
        )
    require_finite(mask, "The mask")
    return (mask.to(image.device) >= HOLE_FROM).float().expand(batch, -1, -1, -1)


def _stream(
    model: DiffIRStage2,
    lq: Tensor,
    noise: Tensor,
    strip: int | None,
    callback: Callback | None,
) -> Tensor:
    """Restore padded images in the dtype of the weights, or in float32 where that fails."""
    dtype = dtype_of(model)

    def run(x: Tensor) -> Tensor:
        return _stream_fitting(model, x, noise, strip, callback)

    if dtype not in (torch.float16, torch.bfloat16):
        return run(lq)
    return or_in_float32(lambda: run(lq.to(dtype)), lambda: run(lq), dtype)


def _stream_fitting(
    model: DiffIRStage2,
    lq: Tensor,
    noise: Tensor,
    strip: int | None,
    callback: Callback | None,
) -> Tensor:
    """Choose the strip if it is not given, and halve it when the device's memory does not do."""
    if strip is not None:
        return stream(model, lq, noise, strip=strip, callback=callback)
    batch, _, height, width = lq.shape
    needs = diffir_strips(model.config, height, width, batch, lq.device.type)
    return in_fitting_strips(
        lambda rows: stream(model, lq, noise, strip=rows, callback=callback),
        needs.rows(free_memory(lq.device), lq.dtype),
    )
