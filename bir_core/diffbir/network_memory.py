"""The memory that the maps of DiffBIR's networks take, each network for itself: the numbers of the
tensors alive at the busiest moment, measured on the official sizes and rounded up."""

import torch

from ..exact_vae.gradient import gradient_bytes, gradient_working_bytes
from ..exact_vae.operations import Operation, base_channels
from ..latents import LATENT_FACTOR
from ..memory import USABLE, StagePlan, dtype_of
from ..networks.swinir import SwinIR
from ..networks.unet import UNetConfig
from ..tiling import SMALLEST_TILE
from .networks import DiffBIRNetworks
from .restoration_modules import RestorationModule
from .stage1 import Size

# Tiles in one call of the networks: more do not make a large device faster.
MOST_TILES = 8

# Measured, in numbers per pixel of its output: three maps of SwinIR's 64 channels.
SWINIR_MAPS = 200
# Of any other network, in float32: an upper bound for those with some 64 maps at the resolution of
# their output, for each of its pixels and for four pixels of the input.
OTHER_MAPS = 256
# In numbers per latent pixel and channel of the first level, besides the residuals that
# IRControlNet hands to the UNet: while the UNet runs, and while IRControlNet does.
UNET_MAPS = 27.6
CONTROL_MAPS = 17
# In numbers per pixel and channel of the widest grid: the whole VAE, and the decoder with what its
# gradient needs.
VAE_MAPS = 6.1
VAE_GRADIENT_MAPS = 46


def plan_stage1(
    module: RestorationModule,
    size: Size,
    tile: int | None,
    free: float,
    *,
    device_type: str,
    images: int = 1,
) -> StagePlan:
    """Stage 1 alone: the maps of its network, without weights and pictures.

    Args:
        size: of the network's input in pixels.
        tile: side of a tile that is set, 0 for the whole; None for the largest that fits.
        free: bytes for it.
    """
    if module.strips is not None:
        # It goes through a tile in strips as through a picture, and through one image at a time.
        height, width = (min(tile or side, side) for side in size)
        needs = module.strips(height, width, 1, device_type)
        rows = needs.rows(int(free / USABLE), torch.float32)
        return StagePlan("stage 1", tile or 0, 0, needs.needed(rows, torch.float32), rows=rows)
    per_pixel = images * _stage1_memory_of_pixel(module)
    if tile is None:
        tile = fitting_tile(size, per_pixel, free)
    height, width = (min(tile or side, side) for side in size)
    return StagePlan("stage 1", tile, 0, per_pixel * height * width)


def fitting_tile(size: Size, bytes_per_pixel: float, free_bytes: float) -> int:
    """The side in pixels of the largest tile that fits into the free memory, a multiple of 64; 0 if
    the whole picture of `size` fits."""
    if size[0] * size[1] * bytes_per_pixel <= free_bytes:
        return 0
    side = int((free_bytes / bytes_per_pixel) ** 0.5)
    return max(SMALLEST_TILE, side // SMALLEST_TILE * SMALLEST_TILE)


def tiles_at_a_time(count: int, one: float, room: float, device: torch.device) -> int:
    """How many of `count` tiles are computed at a time, if one takes `one` bytes of `room`; a CPU
    gains nothing by several."""
    if device.type == "cpu":
        return 1
    return max(1, min(count, MOST_TILES, int(room / one)))


def gradient_memory(
    operations: list[Operation],
    padded: Size,
    tile: int,
    room: float,
    *,
    device: torch.device,
    dtype: torch.dtype,
    images: int = 1,
) -> tuple[int, int]:
    """Bytes on the device and on the host for the way through a VAE's decoder and back.

    Args:
        operations: of `decoder_operations`.
        padded: size of the picture in pixels.
        tile: side of a tile in pixels; 0 for the whole picture.
        room: bytes of the device for it.
        dtype: to compute in.
    """
    height, width = padded
    if not tile or tile >= max(padded):
        numbers = VAE_GRADIENT_MAPS * base_channels(operations) * height * width * images
        return numbers * dtype.itemsize, 0
    parked = images * gradient_bytes(operations, height // LATENT_FACTOR, width // LATENT_FACTOR)
    working = gradient_working_bytes(operations, tile, dtype)
    if parked + working <= room or device.type == "cpu":
        return parked + working, 0
    return working, parked


def _stage1_memory_of_pixel(module: RestorationModule) -> int:
    """Bytes of the maps for a pixel of the input."""
    if isinstance(module.network, SwinIR):
        return SWINIR_MAPS * module.scale**2 * dtype_of(module.network).itemsize
    return 4 * OTHER_MAPS * (4 + module.scale**2)


def stage2_memory(networks: DiffBIRNetworks, height: int, width: int, samples: int) -> int:
    """Bytes of the maps of UNet and IRControlNet for pictures of (height, width) pixels."""
    config: UNetConfig = networks.sd_unet.config  # type: ignore[assignment]
    latent = height // LATENT_FACTOR * (width // LATENT_FACTOR)
    numbers = UNET_MAPS * config.model_channels + _residuals(config)
    return int(numbers * latent * samples * dtype_of(networks.sd_unet).itemsize)


def control_memory(config: UNetConfig, samples: int, height: int, width: int, itemsize: int) -> int:
    """Bytes of the maps while an IRControlNet runs on latents (samples, 4, height, width).

    Args:
        itemsize: bytes per number.
    """
    numbers = CONTROL_MAPS * config.model_channels + _residuals(config)
    return int(numbers * samples * height * width * itemsize)


def _residuals(config: UNetConfig) -> float:
    """Numbers per latent pixel that IRControlNet hands to the UNet."""
    return sum(
        config.model_channels * mult * (config.num_res_blocks + 1) / 4**level
        for level, mult in enumerate(config.channel_mult)
    )
