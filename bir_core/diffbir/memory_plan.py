"""How much memory each stage of a run takes, and the pieces in which it fits: one plan for all.

The numbers are those of the tensors alive at the busiest moment, measured on the networks of the
official sizes and rounded up; `USABLE` leaves the rest of the memory to the work space of libraries
and to what no estimate sees. Where a plan is wrong nevertheless, each stage goes on with smaller
pieces when the memory runs out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..exact_vae.gradient import gradient_bytes, gradient_working_bytes
from ..exact_vae.operations import (
    Operation,
    base_channels,
    decoder_operations,
    encoder_operations,
    parked_bytes,
    working_bytes,
)
from ..exact_vae.tiled import fitting_parkings
from ..latents import LATENT_FACTOR, PADDED_MULTIPLE
from ..memory import USABLE, MemoryPlan, StagePlan, dtype_of, weight_bytes
from ..networks.swinir import SwinIR
from ..networks.unet import UNetConfig
from ..tiling import SMALLEST_TILE, tiles
from .networks import DiffBIRNetworks
from .restoration_modules import RestorationModule
from .settings import DiffBIRSettings
from .stage1 import Size, Stage1Sizes
from .versions import Order

# Bytes that no picture takes: a plan for them says what the work would like to have.
PLENTY = 1e15
RGB = 3 * 4  # bytes of a pixel in float32
# Sides of tiles in pixels, the preferred first: Stable Diffusion 2.1 base was trained on 512.
TILES = (512, 256, 128, 64)
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
# In numbers per latent pixel: noise, estimates and memory of a sampler, weights of the tiles.
LATENT_MAPS = 64
# In RGB pictures of the padded size that are alive besides the networks' maps.
ENCODING_PICTURES = 4
SAMPLING_PICTURES = 4
GUIDANCE_PICTURES = 4  # on pixels
DECODING_PICTURES = 10


@dataclass(frozen=True, kw_only=True)
class _Planner:
    """The numbers that all stages of a plan share."""

    networks: DiffBIRNetworks
    settings: DiffBIRSettings
    padded: Size
    device: torch.device
    memory: int
    host_memory: int
    offload: bool

    @property
    def pixels(self) -> int:
        return self.padded[0] * self.padded[1]

    def weights(self, *used: nn.Module | None) -> int:
        """Of the networks that lie on the device while `used` work."""
        return weight_bytes(*(used if self.offload else self.networks.modules))

    def room(self, weights: int) -> float:
        """Bytes for work beside weights."""
        return USABLE * self.memory - weights

    def stage1(self, sizes: Stage1Sizes, order: Order, images: int) -> StagePlan:
        module = self.networks.stage1
        scale = 1 if module is None else module.scale
        size = _padded(sizes.network) if order == "enlarge_first" else sizes.network
        weights = self.weights(self.networks.stage1_network)
        # The network's input, its output and the sums of the tiles, and the result.
        pictures = images * RGB * (size[0] * size[1] * (3 + 3 * scale**2) + self.pixels)
        tile = self.settings.stage1_tile
        if module is None:
            return StagePlan("stage 1", tile or 0, weights, pictures)
        free = max(0.0, self.room(weights) - pictures)
        plan = plan_stage1(module, size, tile, free, device_type=self.device.type, images=images)
        return replace(plan, weights=weights, work=pictures + plan.work)

    def vae(
        self, name: str, operations: list[Operation], size: Size, pictures: int, images: int
    ) -> StagePlan:
        """Encoding or decoding; `size` is that of the network's input, and `pictures` are held for
        each of the images."""
        dtype = dtype_of(self.networks.sd_vae)
        weights = self.weights(self.networks.sd_vae)
        held = images * RGB * pictures * self.pixels
        chosen = self.settings.vae_tile
        if chosen == 0:
            numbers = VAE_MAPS * base_channels(operations) * self.pixels * images
            return StagePlan(name, 0, weights, held + int(numbers * dtype.itemsize))
        plan = None
        for tile in TILES if chosen is None else (chosen,):
            working = working_bytes(operations, min(tile, max(self.padded)), dtype)
            parkings = fitting_parkings(
                operations,
                *size,
                tile=tile,
                device=self.device,
                dtype=dtype,
                free_device=max(0, int((self.room(weights) - held) / USABLE)),
                free_host=self.host_memory,
            )
            if not parkings:
                # As little as possible, which is more than there is.
                parked = parked_bytes(operations, *size, torch.float16)
                plan = StagePlan(name, tile, weights, held + working + parked)
                continue
            parking = parkings[0]
            parked = parked_bytes(operations, *size, parking.dtype)
            if parking.device == self.device:
                return StagePlan(name, tile, weights, held + working + parked)
            plan = StagePlan(name, tile, weights, held + working, parked)
            if held + working <= self.room(weights):
                return plan
        assert plan is not None  # there is at least one tile
        return plan

    def sampling(self, images: int) -> StagePlan:
        networks, settings = self.networks, self.settings
        used = [networks.sd_unet, networks.ir_controlnet]
        pictures = SAMPLING_PICTURES
        if settings.guidance_in_pixels:
            used.append(networks.sd_vae)
            pictures += GUIDANCE_PICTURES
        latents = 4 * LATENT_MAPS * self.pixels // LATENT_FACTOR**2
        held = images * (RGB * pictures * self.pixels + latents)
        weights = self.weights(*used)
        room = self.room(weights) - held
        of_prompts = 1 if settings.cfg == 1 and not settings.rescale_cfg else 2
        for tile in TILES if settings.tile is None else (settings.tile,):
            height, width = (min(tile or side, side) for side in self.padded)
            one = _stage2_memory(networks, height, width, images * of_prompts)
            overlap = min(settings.overlap, tile // 2)
            count = len(tiles(*self.padded, tile, overlap)) if tile else 1
            batch = settings.tile_batch or tiles_at_a_time(count, one, room, self.device)
            guiding, parked = self.gradient(tile, images, room)
            work = held + max(batch * one, guiding)
            plan = StagePlan("sampling", tile, weights, work, parked, tile_batch=batch)
            if plan.memory <= USABLE * self.memory and parked <= USABLE * self.host_memory:
                break
        return plan

    def gradient(self, tile: int, images: int, room: float) -> tuple[int, int]:
        """Bytes on the device and on the host for the way through the decoder and back."""
        if not self.settings.guidance_in_pixels:
            return 0, 0
        vae = self.networks.sd_vae
        return gradient_memory(
            decoder_operations(vae.decoder),
            self.padded,
            tile,
            room,
            device=self.device,
            dtype=dtype_of(vae),
            images=images,
        )


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


def _stage2_memory(networks: DiffBIRNetworks, height: int, width: int, samples: int) -> int:
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


def _padded(size: Size) -> Size:
    height, width = (side + -side % PADDED_MULTIPLE for side in size)
    return height, width


def plan_diffbir(
    networks: DiffBIRNetworks,
    sizes: Stage1Sizes,
    order: Order,
    settings: DiffBIRSettings,
    *,
    device: torch.device,
    memory: int,
    host_memory: int,
    images: int = 1,
    offload: bool = False,
) -> MemoryPlan:
    """Tiles of all stages of DiffBIR that fit into the memory of a device.

    The sampling keeps to tiles of 512 pixels, on which the base was trained, so that the result
    depends on the memory only where that is too small for them, or for the whole picture in
    stage 1. What `settings` say is not changed.

    Args:
        networks: with their weights in the type of the run.
        sizes, order: of `stage1.stage1_sizes` and `stage1.official_order`.
        settings: None in them leaves a number to the plan.
        device: where the networks compute; it need not be there.
        memory: its bytes that may be used, weights included.
        host_memory: bytes of the host; the same memory for a CPU.
        images: in the batch.
        offload: whether only the networks of the stage lie on the device.

    Returns:
        The plan; if `fits` is False then even the smallest pieces take more.
    """
    encoder = encoder_operations(networks.sd_vae.encoder)
    decoder = decoder_operations(networks.sd_vae.decoder)
    padded = _padded(sizes.condition)
    latent = (padded[0] // LATENT_FACTOR, padded[1] // LATENT_FACTOR)
    planner = _Planner(
        networks=networks,
        settings=settings,
        padded=padded,
        device=device,
        memory=memory,
        host_memory=host_memory,
        offload=offload,
    )
    # The whole batch where it fits, or else picture by picture: smaller tiles would make a result
    # depend on what else is in the batch.
    together, alone = (
        (planner.stage1(sizes, order, count), planner.sampling(count)) for count in (images, 1)
    )
    same = [stage.tile for stage in together] == [stage.tile for stage in alone]
    if not same or max(stage.memory for stage in together) > USABLE * memory:
        images, together = 1, alone
    stages = (
        together[0],
        planner.vae("encoding", encoder, padded, ENCODING_PICTURES, images),
        together[1],
        planner.vae("decoding", decoder, latent, DECODING_PICTURES, images),
    )
    return MemoryPlan(_one_vae_tile(stages), memory, host_memory, images)


def _one_vae_tile(stages: Sequence[StagePlan]) -> tuple[StagePlan, ...]:
    """The smaller tile of the VAE for both ways: one setting serves them."""
    names = ("encoding", "decoding")
    smallest = min(stage.tile for stage in stages if stage.name in names)
    return tuple(
        replace(stage, tile=smallest) if stage.name in names else stage for stage in stages
    )


def least_decoding_bytes(sd_vae: nn.Module, size: Size) -> int:
    """What decoding a picture of (height, width) pixels takes in any pieces, on device and host
    together."""
    height, width = _padded(size)
    latent = (height // LATENT_FACTOR, width // LATENT_FACTOR)
    maps = parked_bytes(decoder_operations(sd_vae.decoder), *latent, torch.float16)
    return maps + RGB * DECODING_PICTURES * height * width
