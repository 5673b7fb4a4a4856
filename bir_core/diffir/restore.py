"""From an image of any size to the restored image."""

import logging
from collections.abc import Callable

import psutil
import torch
from torch import Tensor, nn

from ..errors import BIRError
from ..images import crop, pad_to_multiple, require_finite
from ..memory import is_out_of_memory
from ..networks.diffir import IPR_LENGTH, DiffIRConfig, DiffIRStage2, draw_noise
from .streaming import stream

Callback = Callable[[int, int], None]

logger = logging.getLogger(__name__)

# Pixels of a strip of the widest map. On a CPU the strip should stay in the caches: measured with
# the official sizes, 4000 pixels are fastest, half or twice as many cost a tenth, and 60000 half as
# much again. Below 4 rows, those that are carried from strip to strip cost more than the caches
# save. On other devices a strip should be long enough to hide the start of its kernels.
CPU_STRIP_PIXELS = 4096
DEVICE_STRIP_PIXELS = 2**20
FEWEST_FAST_ROWS = 4
# Part of the free memory that a plan uses; the rest is for the libraries' own work space.
USABLE = 0.8


def plan_strip(
    config: DiffIRConfig,
    height: int,
    width: int,
    batch: int,
    free_bytes: int,
    dtype: torch.dtype,
    device_type: str = "cpu",
) -> int:
    """Rows of a strip for `stream`: as many as are fast on the device, if they fit.

    Args:
        height, width: of the padded image, in pixels.
        batch: images; only their inputs and results add up, since each is computed alone.
        free_bytes: memory that may be used.
        dtype: of the image in the network.
        device_type: "cpu", "cuda", ...

    Returns:
        Rows of the working grid (image pixels divided by `config.unshuffle`), at least 1: less
        cannot be computed, so if even that does not fit the allocation fails later.
    """
    rows, columns = height // config.unshuffle, width // config.unshuffle
    whole, per_row, head = _numbers_in_memory(config, height, width, batch)
    usable = USABLE * free_bytes / dtype.itemsize - whole - head
    fitting = int(usable / max(per_row, head / 8))
    return max(1, min(fitting, _fastest_strip(rows, columns, device_type)))


def required_memory(
    config: DiffIRConfig, height: int, width: int, dtype: torch.dtype, device_type: str = "cpu"
) -> int:
    """Bytes of work space that let `restore` take its fastest strips for one image.

    Arguments as in `plan_strip`, whose plan for this much free memory it is; the image need not be
    padded yet.
    """
    height, width = (-side % config.size_multiple + side for side in (height, width))
    rows, columns = height // config.unshuffle, width // config.unshuffle
    strip = _fastest_strip(rows, columns, device_type)
    return int(strip_memory(config, height, width, strip + 1, dtype) / USABLE)


def strip_memory(
    config: DiffIRConfig, height: int, width: int, strip: int, dtype: torch.dtype
) -> int:
    """Bytes that `restore` takes for one padded image in strips of so many rows. Arguments as in
    `plan_strip`."""
    whole, per_row, head = _numbers_in_memory(config, height, width, batch=1)
    return int((whole + head + strip * max(per_row, head / 8)) * dtype.itemsize)


def _fastest_strip(rows: int, columns: int, device_type: str) -> int:
    pixels = CPU_STRIP_PIXELS if device_type == "cpu" else DEVICE_STRIP_PIXELS
    return min(rows, max(FEWEST_FAST_ROWS, pixels // columns))


def _numbers_in_memory(
    config: DiffIRConfig, height: int, width: int, batch: int
) -> tuple[float, float, float]:
    """How many numbers `stream` holds: maps and images, per row of a strip, and for the head."""
    rows, columns = height // config.unshuffle, width // config.unshuffle
    widest, hidden = 2 * config.dim, int(2 * config.dim * config.ffn_expansion_factor)
    # The U's maps: 2 dim on level 1; 2, 4 and 8 dim on levels 2 to 4 of 1/4, 1/16 and 1/64 pixels.
    maps = rows * columns * config.dim * (2 + 2 / 4 + 4 / 16 + 8 / 64)
    images = batch * height * width * (config.in_channels + 3 * config.scale**2)
    # Feed-forward: gate and value each before, in and after the depthwise convolution.
    per_row = columns * (8 * hidden + 6 * widest)
    # Head of super-resolution, for an eighth of the rows: three copies of its widest map.
    head = columns * 16 * widest * 4 if config.task == "sr" else 0
    return maps + images, per_row, head


def free_memory(device: torch.device) -> int:
    """Bytes that can be allocated on a device now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return int(psutil.virtual_memory().available)


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
        mask: for inpainting, (B, 1, H, W) or (1, 1, H, W); what is above 0 is the hole. What is
            outside of it is returned unchanged.
        seed: image i draws its noise from a CPU generator seeded `seed + i`.
        noise: Z_T, (B, 256) standard normal, instead of the seed.
        strip: rows of the working grid (image pixels divided by 1, or 2 or 4 for models of scale 2
            and 1) that are computed at a time; it changes the need for memory, and the result by
            rounding only. None chooses from the free memory.
        callback: called with (strips done, strips in all) after each strip; may raise to cancel.

    Returns:
        (B, 3, H * scale, W * scale), float32 in [0, 1], on the image's device.

    Raises:
        BIRError: a model, image, mask, noise or strip of the wrong kind; NaN or infinity in the
            image, or in the result even in float32.
    """
    if not isinstance(model, DiffIRStage2):
        raise BIRError(
            f"Restoring needs a DiffIR stage 2, but a {type(model).__name__} came; "
            "load a DiffIR stage 2 file."
        )
    config = model.config
    _require_image(image)
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

    lq = image.float()
    if mask is None:
        lq = pad_to_multiple(lq, config.size_multiple, "reflect")
    else:
        masked = torch.cat([lq * (1 - mask), mask], dim=1)
        lq = pad_to_multiple(masked, config.size_multiple, "symmetric")
    restored = _stream(model, lq, noise, strip, callback).float()
    restored = crop(restored, height * config.scale, width * config.scale)
    if mask is not None:
        restored = mask * restored + (1 - mask) * image
    return restored.clamp(0, 1).contiguous()


def _require_image(image: Tensor) -> None:
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point() or not image.numel():
        raise BIRError(
            "The image should be a tensor (B, 3, H, W) of floating-point numbers in [0, 1], but "
            f"{tuple(image.shape)} of {image.dtype} came; convert it first."
        )
    require_finite(image, "The image")


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
            "A DiffIR for inpainting expects a mask, but none came; give one that is above 0 in "
            "the hole."
        )
    batch, _, height, width = image.shape
    if mask.shape not in ((batch, 1, height, width), (1, 1, height, width)):
        raise BIRError(
            f"The mask should have the shape {(batch, 1, height, width)} of the image, but "
            f"{tuple(mask.shape)} came; resize it to the image."
        )
    require_finite(mask, "The mask")
    return (mask.to(image.device) > 0).float().expand(batch, -1, -1, -1)


def _stream(
    model: DiffIRStage2,
    lq: Tensor,
    noise: Tensor,
    strip: int | None,
    callback: Callback | None,
) -> Tensor:
    """Restore padded images in the dtype of the weights, or in float32 where that fails."""
    dtype = model.G.patch_embed.proj.weight.dtype
    if dtype in (torch.float16, torch.bfloat16):
        try:
            return _stream_fitting(model, lq.to(dtype), noise, strip, callback)
        except FloatingPointError as error:
            logger.warning("NaN or infinity in the %s in %s: repeating in float32", error, dtype)
    try:
        return _stream_fitting(model, lq, noise, strip, callback)
    except FloatingPointError as error:
        raise BIRError(
            f"Restoring should give finite numbers, but NaN or infinity came out of the {error} "
            "even in float32; the weights are damaged or the image is far outside of [0, 1]."
        ) from error


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
    strip = plan_strip(
        model.config, height, width, batch, free_memory(lq.device), lq.dtype, lq.device.type
    )
    while True:
        try:
            return stream(model, lq, noise, strip=strip, callback=callback)
        except (RuntimeError, MemoryError) as error:
            if strip == 1 or not is_out_of_memory(error):
                raise
        # Behind the except block, whose error still holds the tensors of the failed attempt.
        strip //= 2
        logger.warning("Out of memory: going on with strips of %d rows", strip)
