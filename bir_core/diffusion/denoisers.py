"""From a network that predicts eps or v at a trained timestep to a denoiser at a noise level.

`cond` is whatever the network takes besides x and its level (context, hint, ...), each entry with a
batch axis.
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


# (x (B, C, h, w) in the variance-preserving form, timesteps (B,), **cond) -> (B, C, h, w)
Network = Callable[..., Tensor]
# (x (B, C, h, w) = x0 + sigma noise, sigma (B,), **cond) -> the clean estimate of x0. At an
# infinite sigma, the first level of a zero-terminal-SNR schedule, x is the noise alone.
Denoiser = Callable[..., Tensor]


def per_sample(level: Tensor, x: Tensor) -> Tensor:
    """A level (B,) in the type of x and in a shape that multiplies it, (B, 1, 1, 1)."""
    return level.to(x).reshape(-1, *[1] * (x.ndim - 1))


def nearest_timesteps(sigma: Tensor, schedule: SamplingSchedule) -> Tensor:
    """Timestep of the nearest scheduled level, by the difference of sigmas, as the official EDM
    samplers take it. sigma: (B,). Returns (B,) in the schedule's type."""
    table = schedule.sigmas.to(sigma.device)
    # The difference of two infinite levels is NaN, but they are the same level.
    distance = (sigma.to(table)[:, None] - table).abs().nan_to_num(nan=0.0, posinf=math.inf)
    return schedule.timesteps.to(sigma.device)[distance.argmin(dim=1)]


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

    def denoise(x: Tensor, sigma: Tensor, /, **cond: Tensor) -> Tensor:
        noise_alone = torch.isinf(sigma)
        if parameterization == "eps" and bool(noise_alone.any()):
            raise BIRError(
                "An eps-prediction base model should start at a finite noise level, but a zero "
                "terminal SNR schedule came; use its v-prediction base or the plain schedule."
            )
        root = (sigma**2 + 1).sqrt()
        c_in = torch.where(noise_alone, 1.0, 1 / root)
        timesteps = nearest_timesteps(sigma, schedule)
        output = network(per_sample(c_in, x) * x, timesteps, **cond)
        if parameterization == "eps":
            return x - per_sample(sigma, x) * output
        c_out = torch.where(noise_alone, 1.0, sigma / root)
        return per_sample(1 / root**2, x) * x - per_sample(c_out, x) * output

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

    def guide(x: Tensor, level: Tensor, /) -> Tensor:
        strength = scale(float(level[0])) if callable(scale) else scale
        if uncond is None or strength == 1:
            return network(x, level, **cond)
        both = {name: torch.cat([value, uncond[name]]) for name, value in cond.items()}
        output = network(torch.cat([x, x]), torch.cat([level, level]), **both)
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

    def run(x: Tensor, level: Tensor, /, **cond: Tensor) -> Tensor:
        def piecewise(pieces: Tensor, chosen: Sequence[Tile]) -> Tensor:
            cut = {
                name: torch.cat([piece.crop(value) for piece in chosen])
                if name in spatial
                else torch.cat([value] * len(chosen))
                for name, value in cond.items()
            }
            return network(pieces, level.repeat(len(chosen)), **cut)

        return tiled_apply(piecewise, x, tile, overlap, weights=weights, tile_batch=tile_batch)

    return run
