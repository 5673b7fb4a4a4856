"""What a whole run of DiffBIR takes: both stages, the VAE between them, and the texts."""

from collections import Counter
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..diffbir.settings import DiffBIRSettings
from ..diffbir.stage1 import SHORT_SIDE, Stage1Sizes, automatic_overlap, stage1_sizes
from ..diffbir.versions import Task, official_module, official_order
from ..diffusion.sampling import named_sampler
from ..diffusion.schedules import sampling_schedule, sd_alphas_cumprod
from ..latents import PADDED_MULTIPLE
from ..tiling import tiles
from .counting import Cost, total
from .networks import Size, count_published

# Side of the tiles of the sampling where the settings leave it open and memory does not matter.
TILE = SHORT_SIDE
MODULES = {"SwinIR": "swinir", "BSRNet": "bsrnet", "SCUNet": "scunet"}


@dataclass(frozen=True)
class StageCost:
    """What a stage takes.

    Attributes:
        name: of its network.
        calls: of the network; of tiles all together.
        cost: of all calls.
    """

    name: str
    calls: int
    cost: Cost


@dataclass(frozen=True)
class RunCost:
    """What a run takes.

    Attributes:
        sizes: on the way, see `Stage1Sizes`.
        stages: in their order.
    """

    sizes: Stage1Sizes
    stages: tuple[StageCost, ...]

    @property
    def total(self) -> Cost:
        return sum((stage.cost for stage in self.stages), Cost())


def evaluations(settings: DiffBIRSettings) -> int:
    """How often the sampler asks for a clean estimate, with all prompts: once a step, or twice with
    a step of second order."""
    sampler = named_sampler(settings.sampler, settings.sampler_options)
    schedule = sampling_schedule(sampler.plan, sd_alphas_cumprod(), settings.steps)
    asked = 0

    def denoise(x: Tensor, sigma: float) -> Tensor:
        nonlocal asked
        asked += 1
        return x

    start = torch.zeros(1, 1, 1, 1)
    sampler.run(
        denoise,
        start,
        schedule.sigmas,
        noise_sampler=lambda sigma, later: torch.zeros_like(start),
        options=settings.sampler_options,
    )
    return asked


def diffbir_cost(
    version: str, task: Task, size: Size, upscale: float, settings: DiffBIRSettings
) -> RunCost:
    """A run on one picture with networks of the official sizes, without restoration guidance.

    Args:
        size: height and width in pixels of the picture that comes in.
        upscale: sides of the result by those of the picture.
        settings: a tile of None is 512 for the sampling, and the whole picture for stage 1; tiles
            of the VAE, which compute what the whole does, are not looked at.

    Raises:
        BIRError: a version without the task's module, impossible sizes, or a module of spandrel's
            where that cannot be used.
    """
    module, order = official_module(task, version), official_order(task, version)
    sizes = stage1_sizes(*size, order, upscale, settings.short_side)
    condition = _padded(sizes.condition)
    prompts = 2 if settings.uses_negative else 1
    seen = _padded(sizes.network) if order == "enlarge_first" else sizes.network
    stage1_tile = settings.stage1_tile or max(seen)
    overlap = settings.stage1_overlap
    if not 0 < overlap < stage1_tile:
        overlap = automatic_overlap(stage1_tile)
    stages = [
        _in_tiles("text_encoder", [size], prompts),
        _in_tiles(MODULES[module.name], _tile_sizes(seen, stage1_tile, overlap), 1),
        *_vae(condition),
    ]
    tile = TILE if settings.tile is None else settings.tile or max(condition)
    pieces = _tile_sizes(condition, tile, min(settings.overlap, tile // 2))
    calls = evaluations(settings) * prompts
    sampled = ("ir_controlnet", "sd_unet") if settings.strength else ("sd_unet",)
    stages[-1:-1] = [_in_tiles(name, pieces, calls) for name in sampled]
    return RunCost(sizes, tuple(stages))


def _padded(size: Size) -> Size:
    height, width = (side + -side % PADDED_MULTIPLE for side in size)
    return height, width


def _tile_sizes(size: Size, tile: int, overlap: int) -> list[Size]:
    return [(each.height, each.width) for each in tiles(*size, tile, overlap)]


def _in_tiles(name: str, pieces: list[Size], calls: int) -> StageCost:
    """A network on pieces of a picture, so many calls on each."""
    costs = [
        total(count_published(name, piece).parts).calls(count * calls)
        for piece, count in Counter(pieces).items()
    ]
    once = replace(sum(costs, Cost()), parameters=costs[0].parameters)
    return StageCost(name, len(pieces) * calls, once)


def _vae(size: Size) -> list[StageCost]:
    """Encoding and decoding."""
    parts = count_published("sd_vae", size).parts
    encoding = {name: cost for name, cost in parts.items() if name in ("encoder", "quant_conv")}
    decoding = {name: cost for name, cost in parts.items() if name not in encoding}
    return [
        StageCost("sd_vae, encoding", 1, total(encoding)),
        StageCost("sd_vae, decoding", 1, total(decoding)),
    ]
