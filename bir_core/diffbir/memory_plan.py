"""How much memory each stage of a run takes, and the pieces in which it fits: one plan for all.

The numbers are those of the tensors alive at the busiest moment, measured on the networks of the
official sizes and rounded up; `USABLE` leaves the rest of the memory to the work space of libraries
and to what no estimate sees. Where a plan is wrong nevertheless, each stage goes on with smaller
pieces when the memory runs out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import nn

from ..exact_vae.memory_plan import moved_bytes, parked_bytes, peak_bytes
from ..exact_vae.operations import Operation, base_channels, decoder_operations, encoder_operations
from ..exact_vae.tiled import PARKED_TYPES
from ..latents import LATENT_FACTOR, PADDED_MULTIPLE
from ..memory import USABLE, MemoryPlan, StagePlan, dtype_of, weight_bytes
from ..tiling import tiles
from .color_fix import STRIP, WAVELET_REACH
from .network_memory import VAE_MAPS, gradient_memory, plan_stage1, stage2_memory, tiles_at_a_time
from .networks import DiffBIRNetworks
from .settings import DiffBIRSettings
from .stage1 import Size, Stage1Sizes
from .versions import Order

# Bytes that no picture takes: a plan for them says what the work would like to have.
PLENTY = 1e15
RGB = 3 * 4  # bytes of a pixel in float32
# Sides of tiles in pixels, the preferred first: Stable Diffusion 2.1 base was trained on 512.
TILES = (512, 256, 128, 64)
# In numbers per latent pixel: noise, estimates and memory of a sampler, weights of the tiles.
LATENT_MAPS = 64
# In RGB pictures of the padded size: while guidance on pixels pulls.
GUIDANCE_PICTURES = 4
# While a weight map for guidance is made.
WEIGHT_PICTURES = 3
# While colours are mended: the picture of stage 1, the decoded one, the finished one, and a strip's
# pieces for each of its pixels, with those of its neighbours.
COLOR_PICTURES = 3
STRIP_PICTURES = 6.4


@dataclass(frozen=True, kw_only=True)
class _Planner:
    """The numbers that all stages of a plan share."""

    networks: DiffBIRNetworks
    settings: DiffBIRSettings
    sizes: Stage1Sizes
    device: torch.device
    memory: int
    host_memory: int
    disk: int
    offload: bool

    @property
    def padded(self) -> Size:
        return _padded(self.sizes.condition)

    @property
    def latent(self) -> Size:
        return self.padded[0] // LATENT_FACTOR, self.padded[1] // LATENT_FACTOR

    @property
    def pixels(self) -> int:
        return _area(self.padded)

    @property
    def kept(self) -> int:
        """Bytes of the picture of stage 1, which may be a part of a padded one, and of its padded
        copy where there is one."""
        return RGB * self.pixels * (1 if self.sizes.condition == self.padded else 2)

    def weights(self, *used: nn.Module | None) -> int:
        """Of the networks that lie on the device while `used` work."""
        return weight_bytes(*(used if self.offload else self.networks.modules))

    def room(self, weights: int) -> float:
        """Bytes for work beside weights."""
        return USABLE * self.memory - weights

    def stage1(self, order: Order, images: int) -> StagePlan:
        module, condition = self.networks.stage1, self.sizes.condition
        scale = 1 if module is None else module.scale
        network = condition if module is None else self.sizes.network
        size = _padded(network) if module is None or order == "enlarge_first" else network
        weights = self.weights(self.networks.stage1_network)
        # The copy of what comes in, the network's input, and its output with the tiles' weights.
        given = 0 if self.device.type == "cpu" else self.pixels
        inside = given + _area(size) * (1 + scale**2 * 4 / 3)
        # While the input is padded, and the output is brought to the size of the result.
        resized = _area(condition) if scale * network[0] != condition[0] else 0
        outside = given + max(
            _area(size) * (1 if size == network else 3), _area(size) * scale**2 * 7 / 6 + resized
        )
        inside, outside = (int(images * RGB * pixels) for pixels in (inside, outside))
        tile = self.settings.stage1_tile
        if module is None:
            tiled = tile and tile < max(size)
            return StagePlan("stage 1", tile or 0, weights, inside if tiled else outside)
        free = max(0.0, self.room(weights) - inside)
        plan = plan_stage1(module, size, tile, free, device_type=self.device.type, images=images)
        return replace(plan, weights=weights, work=max(inside + plan.work, outside))

    def encoding(self, images: int) -> StagePlan:
        operations = encoder_operations(self.networks.sd_vae.encoder)
        own = 3 * dtype_of(self.networks.sd_vae).itemsize * self.pixels
        return self.vae("encoding", operations, self.padded, images, images * (self.kept + own))

    def decoding(self, images: int) -> StagePlan:
        """With all that is done to the decoded picture."""
        operations = decoder_operations(self.networks.sd_vae.decoder)
        condition, output = self.sizes.condition, self.sizes.output
        held = RGB * self.pixels * (2 * images - 1)
        height, width = self.padded
        strip = min(height, STRIP + 2 * WAVELET_REACH) * width
        colors = (COLOR_PICTURES + bool(self.settings.blending)) * self.pixels
        colors += STRIP_PICTURES * strip if self.settings.color_fix == "wavelet" else 0
        resizing = 2 * _area(condition) + (2 * _area(output) if output != condition else 0)
        after = int(images * RGB * max(colors, resizing))
        return self.vae("decoding", operations, self.latent, images, held, after)

    def vae(
        self,
        name: str,
        operations: list[Operation],
        size: Size,
        images: int,
        held: int,
        after: int = 0,
    ) -> StagePlan:
        """Encoding or decoding; `size` is that of the network's input, `held` are the bytes beside
        its maps, and `after` those without."""
        dtype = dtype_of(self.networks.sd_vae)
        weights = self.weights(self.networks.sd_vae)
        chosen = self.settings.vae_tile
        if chosen == 0:
            numbers = VAE_MAPS * base_channels(operations) * self.pixels * images
            work = held + int(numbers * dtype.itemsize)
            return StagePlan(name, 0, weights, max(work, after))
        on_cpu = self.device.type == "cpu"

        def peak(tile: int, parked: torch.dtype, elsewhere: bool) -> int:
            maps = peak_bytes(
                operations,
                *size,
                tile=tile,
                dtype=dtype,
                parked=parked,
                elsewhere=elsewhere,
                copied=not on_cpu and (elsewhere or parked != torch.float32),
            )
            return max(held + maps, after)

        sides = TILES if chosen is None else (chosen,)
        for tile, parked in product(sides, PARKED_TYPES):
            maps = parked_bytes(operations, *size, parked)
            inside, outside = (peak(tile, parked, elsewhere) for elsewhere in (False, True))
            if inside <= self.room(weights):
                return StagePlan(name, tile, weights, inside)
            on_host = not on_cpu and maps <= USABLE * self.host_memory
            if on_host and outside <= self.room(weights):
                return StagePlan(name, tile, weights, outside, maps)
        # In a file then, with the largest tile beside which there is room.
        filed = parked_bytes(operations, *size, torch.float32)
        for tile in sides:
            moved = images * moved_bytes(operations, *size, tile, torch.float32)
            plan = StagePlan(
                *(name, tile, weights, peak(tile, torch.float32, True)), filed=filed, moved=moved
            )
            if plan.work <= self.room(weights):
                break
        return plan

    def sampling(self, images: int) -> StagePlan:
        networks, settings = self.networks, self.settings
        used = [networks.sd_unet, networks.ir_controlnet]
        latents = 4 * LATENT_MAPS * self.pixels // LATENT_FACTOR**2
        held = self.kept + latents
        if settings.guidance_in_pixels:
            used.append(networks.sd_vae)
            held += RGB * GUIDANCE_PICTURES * self.pixels
        held *= images
        weighing = 0
        if settings.guidance and settings.guidance_loss == "w_mse":
            weighing = images * RGB * WEIGHT_PICTURES * self.pixels
        weights = self.weights(*used)
        room = self.room(weights) - held
        of_prompts = 1 if settings.cfg == 1 and not settings.rescale_cfg else 2
        for tile in TILES if settings.tile is None else (settings.tile,):
            height, width = (min(tile or side, side) for side in self.padded)
            one = stage2_memory(networks, height, width, images * of_prompts)
            overlap = min(settings.overlap, tile // 2)
            count = len(tiles(*self.padded, tile, overlap)) if tile else 1
            batch = settings.tile_batch or tiles_at_a_time(count, one, room, self.device)
            guiding, parked = self.gradient(tile, images, room)
            work = held + max(batch * one, guiding, weighing)
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


def _area(size: Size) -> int:
    return size[0] * size[1]


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
    disk: int = 0,
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
        disk: bytes that files may take, see `mapped_files`.
        images: in the batch.
        offload: whether only the networks of the stage lie on the device.

    Returns:
        The plan; if `fits` is False then even the smallest pieces take more.
    """
    planner = _Planner(
        networks=networks,
        settings=settings,
        sizes=sizes,
        device=device,
        memory=memory,
        host_memory=host_memory,
        disk=disk,
        offload=offload,
    )
    # The whole batch where it fits, or else picture by picture: smaller tiles would make a result
    # depend on what else is in the batch.
    together, alone = (
        (planner.stage1(order, count), planner.sampling(count)) for count in (images, 1)
    )
    same = [stage.tile for stage in together] == [stage.tile for stage in alone]
    if not same or max(stage.memory for stage in together) > USABLE * memory:
        images, together = 1, alone
    stages = (together[0], planner.encoding(images), together[1], planner.decoding(images))
    return MemoryPlan(_one_vae_tile(stages), memory, host_memory, images, disk)


def _one_vae_tile(stages: Sequence[StagePlan]) -> tuple[StagePlan, ...]:
    """The smaller tile of the VAE for both ways: one setting serves them."""
    names = ("encoding", "decoding")
    smallest = min(stage.tile for stage in stages if stage.name in names)
    return tuple(
        replace(stage, tile=smallest) if stage.name in names else stage for stage in stages
    )


def least_decoding_bytes(sd_vae: nn.Module, size: Size, disk: int) -> int:
    """What decoding a picture of (height, width) pixels takes in any pieces, on device and host
    together, beside so many bytes that files may take."""
    height, width = _padded(size)
    latent = (height // LATENT_FACTOR, width // LATENT_FACTOR)
    filed, maps = (
        parked_bytes(decoder_operations(sd_vae.decoder), *latent, dtype)
        for dtype in (torch.float32, torch.float16)
    )
    return (0 if filed <= disk else maps) + RGB * COLOR_PICTURES * height * width
