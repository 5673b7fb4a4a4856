"""From a network that predicts eps or v at a trained timestep to a denoiser at a noise level.

`cond` is whatever the network takes besides x and its level (context, hint, ...), each entry with a
batch axis. A batch has one level, a number of the host: what follows from it is decided without
waiting for the device.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from ..errors import BIRError
from ..tiling import Tile, TileWeights, tiled_apply
from .schedules import TRAINED_STEPS, SamplingSchedule

Parameterization = Literal["eps", "v"]


# (x (B, C, h, w) in the variance-preserving form, timestep, **cond) -> (B, C, h, w)
Network = Callable[..., Tensor]
# (x (B, C, h, w) = x0 + sigma noise, sigma, **cond) -> the clean estimate of x0. At an infinite
# sigma, the first level of a zero-terminal-SNR schedule, x is the noise alone.
Denoiser = Callable[..., Tensor]


def nearest_timestep(sigma: float, levels: Sequence[tuple[float, float]]) -> float:
    """Timestep of the nearest level, each (sigma, timestep), by the difference of sigmas, as the
    official EDM samplers take it."""
    # The difference of two infinite levels is NaN, but they are the same level.
    distances = [0.0 if level == sigma else abs(level - sigma) for level, _ in levels]
    return levels[distances.index(min(distances))][1]


def discrete_denoiser(
    network: Network, schedule: SamplingSchedule, parameterization: Parameterization
) -> Denoiser:
    """A denoiser on a network that knows trained timesteps.

    Args:
        network: see the head of this file.
        schedule: which timestep belongs to which sigma; a sigma between two levels is given the
            timestep of the nearer one.
        parameterization: "eps": x0 = x - sigma eps; "v": x0 = x / (sigma^2 + 1) - v sigma /
            sqrt(sigma^2 + 1); both from the network at x / sqrt(sigma^2 + 1).

    Raises:
        BIRError: from the denoiser, an eps network at an infinite sigma, where x says nothing.
    """
    levels = schedule.levels

    def denoise(x: Tensor, sigma: float, /, **cond: Tensor) -> Tensor:
        timestep = nearest_timestep(sigma, levels)
        if sigma == math.inf:
            if parameterization == "eps":
                raise BIRError(
                    "An eps-prediction base model should start at a finite noise level, but a zero "
                    "terminal SNR schedule came; use its v-prediction base or the plain schedule."
                )
            return -network(x, timestep, **cond)
        root = math.sqrt(sigma**2 + 1)
        output = network(x / root, timestep, **cond)
        if parameterization == "eps":
            return x - sigma * output
        return x / root**2 - (sigma / root) * output

    return denoise


def rescaled_cfg_scale(scale: float, timestep: float) -> float:
    """DiffBIR's growing classifier-free guidance: 1 at timestep 1000, 1 + scale at timestep 0,
    1 + scale (1 - cos(pi ((1000 - t) / 1000)^5)) / 2 between. A scale up to 1 stays as it is."""
    if scale <= 1:
        return scale
    progress = (TRAINED_STEPS - timestep) / TRAINED_STEPS
    return 1 + scale * (1 - math.cos(math.pi * progress**5)) / 2


def with_cfg(
    network: Network,
    cond: Mapping[str, Tensor],
    uncond: Mapping[str, Tensor] | None = None,
    scale: float | Callable[[float], float] = 1.0,
) -> Network:
    """Classifier-free guidance (Ho and Salimans 2022): uncond + scale (cond - uncond).

    Both go through the network in one batch, cond first. Where the scale is 1 uncond is not run.

    Args:
        network: a network or a denoiser.
        cond, uncond: the conditions of the two; None: there is no uncond.
        scale: a number, or a function of the level, such as `rescaled_cfg_scale`.

    Returns:
        A callable (x, level) with the conditions bound.
    """

    def guide(x: Tensor, level: float, /) -> Tensor:
        strength = scale(level) if callable(scale) else scale
        if uncond is None or strength == 1:
            return network(x, level, **cond)
        both = {name: torch.cat([value, uncond[name]]) for name, value in cond.items()}
        output = network(torch.cat([x, x]), level, **both)
        output_cond, output_uncond = output.chunk(2)
        return output_uncond + strength * (output_cond - output_uncond)

    return guide


def with_tiles(
    network: Network,
    tile: int,
    overlap: int,
    *,
    spatial: Collection[str] = ("hint",),
    weights: TileWeights = "gaussian",
    tile_batch: int = 1,
) -> Network:
    """A network that runs on overlapping tiles of x and is blended at each call, while the noise,
    the sampler and the guidance see the whole latent (Bar-Tal et al. 2023, "MultiDiffusion").

    Args:
        network: a network or a denoiser.
        tile, overlap: in latents; see `bir_core.tiling.tiled_apply` for these and the others.
        spatial: the conditions that have the height and width of x and are cut with it.
    """

    def run(x: Tensor, level: float, /, **cond: Tensor) -> Tensor:
        def piecewise(pieces: Tensor, chosen: Sequence[Tile]) -> Tensor:
            cut = {
                name: torch.cat([piece.crop(value) for piece in chosen])
                if name in spatial
                else torch.cat([value] * len(chosen))
                for name, value in cond.items()
            }
            return network(pieces, level, **cut)

        return tiled_apply(piecewise, x, tile, overlap, weights=weights, tile_batch=tile_batch)

    return run
