"""Samplers that evaluate the denoiser twice a step: at its start and in the middle of log sigma.

What holds for `samplers` holds here. DiffBIR tells the network the timestep of the scheduled level
that is nearest to such a middle.
"""

import torch
from torch import Tensor

from .denoisers import Denoiser
from .noise import Interval, NoiseSampler
from .samplers import (
    Callback,
    Churn,
    add_ancestral,
    ancestral_levels,
    report_step,
    slope_at,
)


def _middle(sigma: float, sigma_next: float) -> float:
    """The level half-way in log sigma, in float32 as in the official code: after a step from sigma
    1e4 the last bit of it shows."""
    start, end = torch.tensor([sigma, sigma_next]).log()
    return float(torch.lerp(start, end, 0.5).exp())


def sample_dpm_2(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise_sampler: NoiseSampler | None = None,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = float("inf"),
    s_noise: float = 1.0,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver-2 (Lu et al. 2022, algorithm 1 of "DPM-Solver"), in the form of Karras et al.
    2022. Arguments as in `sample_euler`."""
    levels = sigmas.tolist()
    steps = len(levels) - 1
    churn = Churn(s_churn, s_tmin, s_tmax, s_noise)
    for i in range(steps):
        x, sigma_hat = churn.raised(x, levels[i], levels[i + 1], steps, noise_sampler)
        denoised = denoiser(x, sigma_hat)
        slope = slope_at(x, denoised, sigma_hat)
        if levels[i + 1] > 0:
            middle = _middle(sigma_hat, levels[i + 1])
            halfway = x + slope * (middle - sigma_hat)
            slope = slope_at(halfway, denoiser(halfway, middle), middle)
        x = x + slope * (levels[i + 1] - sigma_hat)
        report_step(callback, i, levels, x, denoised)
    return x


def sample_dpm_2_ancestral(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise_sampler: NoiseSampler,
    eta: float = 1.0,
    s_noise: float = 1.0,
    callback: Callback | None = None,
) -> Tensor:
    """Steps of DPM-Solver-2 to a lower level, then noise up to the wanted one. Arguments as in
    `sample_euler_ancestral`."""
    levels = sigmas.tolist()
    down, up = ancestral_levels(sigmas[:-1], sigmas[1:], eta)
    for i in range(len(levels) - 1):
        denoised = denoiser(x, levels[i])
        slope = slope_at(x, denoised, levels[i])
        if down[i] > 0:
            middle = _middle(levels[i], down[i])
            halfway = x + slope * (middle - levels[i])
            slope = slope_at(halfway, denoiser(halfway, middle), middle)
        x = x + slope * (down[i] - levels[i])
        x = add_ancestral(x, levels[i], levels[i + 1], up[i], s_noise, noise_sampler)
        report_step(callback, i, levels, x, denoised)
    return x


def _exponential_step(x: Tensor, denoised: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """From one level to another if the clean estimate stays the same."""
    ratio = sigma_next / sigma
    return ratio * x + (1 - ratio) * denoised


def sample_dpmpp_2s_ancestral(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise_sampler: NoiseSampler,
    eta: float = 1.0,
    s_noise: float = 1.0,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver++(2S) (Lu et al. 2022, algorithm 1 of "DPM-Solver++") to a lower level, then noise
    up to the wanted one. Arguments as in `sample_euler_ancestral`."""
    levels = sigmas.tolist()
    down, up = ancestral_levels(sigmas[:-1], sigmas[1:], eta)
    for i in range(len(levels) - 1):
        denoised = estimate = denoiser(x, levels[i])
        if down[i] > 0:
            middle = _middle(levels[i], down[i])
            estimate = denoiser(_exponential_step(x, denoised, levels[i], middle), middle)
        x = _exponential_step(x, estimate, levels[i], down[i])
        x = add_ancestral(x, levels[i], levels[i + 1], up[i], s_noise, noise_sampler)
        report_step(callback, i, levels, x, denoised)
    return x


def _sde_levels(sigmas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Start, middle and end of each step (K,) that does not end at 0. They go through their
    logarithms in float32 as in the official code, since what `ancestral_levels` leaves of them is
    rounding."""
    logs = sigmas[sigmas > 0].log()
    start, end = -logs[:-1], -logs[1:]
    return (-start).exp(), (-(start + (end - start) * 0.5)).exp(), (-end).exp()


def half_intervals(sigmas: Tensor) -> list[Interval]:
    """What `sample_dpmpp_sde` asks its noise for."""
    steps = zip(*(level.tolist() for level in _sde_levels(sigmas)), strict=True)
    return [(start, to) for start, middle, end in steps for to in (middle, end)]


def sample_dpmpp_sde(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise_sampler: NoiseSampler,
    eta: float = 1.0,
    s_noise: float = 1.0,
    callback: Callback | None = None,
) -> Tensor:
    """SDE-DPM-Solver++(2S): noise also on the way to the middle. Arguments as in
    `sample_euler_ancestral`; the noise sampler is called twice a step, to the middle and to the
    end."""
    levels = sigmas.tolist()
    starts, middles, ends = _sde_levels(sigmas)
    # (from, to, the level to step down to, the deviation of the noise) of each way.
    to_middle, to_end = (
        list(zip(starts.tolist(), to.tolist(), *ancestral_levels(starts, to, eta), strict=True))
        for to in (middles, ends)
    )

    def towards(way: tuple[float, float, float, float], x: Tensor, estimate: Tensor) -> Tensor:
        sigma, level, down, up = way
        noise = noise_sampler(sigma, level) * (s_noise * up)
        return _exponential_step(x, estimate, sigma, down) + noise

    for i in range(len(levels) - 1):
        denoised = denoiser(x, levels[i])
        if levels[i + 1] == 0:
            x = denoised
        else:
            halfway = towards(to_middle[i], x, denoised)
            x = towards(to_end[i], x, denoiser(halfway, to_middle[i][1]))
        report_step(callback, i, levels, x, denoised)
    return x
