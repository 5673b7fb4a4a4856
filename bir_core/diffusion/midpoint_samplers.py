"""Samplers that evaluate the denoiser twice a step: at its start and in the middle of log sigma.

What holds for `samplers` holds here. DiffBIR tells the network the timestep of the scheduled level
that is nearest to such a middle.
"""

import torch
from torch import Tensor

from .denoisers import Denoiser
from .noise import NoiseSampler
from .samplers import (
    Callback,
    Churn,
    add_ancestral,
    ancestral_levels,
    denoise_at,
    report_step,
    slope_at,
)


def _middle(sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """The level half-way in log sigma."""
    return torch.lerp(sigma.log(), sigma_next.log(), 0.5).exp()


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
    steps = len(sigmas) - 1
    churn = Churn(s_churn, s_tmin, s_tmax, s_noise)
    for i in range(steps):
        x, sigma_hat = churn.raised(x, sigmas[i], sigmas[i + 1], steps, noise_sampler)
        denoised = denoise_at(denoiser, x, sigma_hat)
        slope = slope_at(x, denoised, sigma_hat)
        if sigmas[i + 1] > 0:
            middle = _middle(sigma_hat, sigmas[i + 1])
            halfway = x + slope * (middle - sigma_hat).to(x)
            slope = slope_at(halfway, denoise_at(denoiser, halfway, middle), middle)
        x = x + slope * (sigmas[i + 1] - sigma_hat).to(x)
        report_step(callback, i, sigmas, x, denoised)
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
    for i in range(len(sigmas) - 1):
        denoised = denoise_at(denoiser, x, sigmas[i])
        sigma_down, sigma_up = ancestral_levels(sigmas[i], sigmas[i + 1], eta)
        slope = slope_at(x, denoised, sigmas[i])
        if sigma_down > 0:
            middle = _middle(sigmas[i], sigma_down)
            halfway = x + slope * (middle - sigmas[i]).to(x)
            slope = slope_at(halfway, denoise_at(denoiser, halfway, middle), middle)
        x = x + slope * (sigma_down - sigmas[i]).to(x)
        x = add_ancestral(x, sigmas[i : i + 2], sigma_up, s_noise, noise_sampler)
        report_step(callback, i, sigmas, x, denoised)
    return x


def _exponential_step(
    x: Tensor, denoised: Tensor, lambda_from: Tensor, lambda_to: Tensor
) -> Tensor:
    """From one level to another if the clean estimate stays the same; lambda = -log sigma."""
    h = lambda_to - lambda_from
    ratio = (-lambda_to).exp() / (-lambda_from).exp()
    return ratio.to(x) * x - torch.expm1(-h).to(x) * denoised


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
    for i in range(len(sigmas) - 1):
        denoised = denoise_at(denoiser, x, sigmas[i])
        sigma_down, sigma_up = ancestral_levels(sigmas[i], sigmas[i + 1], eta)
        if sigma_down == 0:
            x = x + slope_at(x, denoised, sigmas[i]) * (sigma_down - sigmas[i]).to(x)
        else:
            start, end = -sigmas[i].log(), -sigma_down.log()
            middle = start + 0.5 * (end - start)
            halfway = _exponential_step(x, denoised, start, middle)
            estimate = denoise_at(denoiser, halfway, (-middle).exp())
            x = _exponential_step(x, estimate, start, end)
        x = add_ancestral(x, sigmas[i : i + 2], sigma_up, s_noise, noise_sampler)
        report_step(callback, i, sigmas, x, denoised)
    return x


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
    for i in range(len(sigmas) - 1):
        denoised = denoise_at(denoiser, x, sigmas[i])
        if sigmas[i + 1] == 0:
            x = x + slope_at(x, denoised, sigmas[i]) * (sigmas[i + 1] - sigmas[i]).to(x)
        else:
            start, end = -sigmas[i].log(), -sigmas[i + 1].log()
            sigma, sigma_next = (-start).exp(), (-end).exp()
            middle = (-(start + (end - start) * 0.5)).exp()

            def towards(
                level: Tensor, estimate: Tensor, x: Tensor = x, sigma: Tensor = sigma
            ) -> Tensor:
                sigma_down, sigma_up = ancestral_levels(sigma, level, eta)
                noise = noise_sampler(sigma, level) * s_noise * sigma_up.to(x)
                return _exponential_step(x, estimate, -sigma.log(), -sigma_down.log()) + noise

            x = towards(sigma_next, denoise_at(denoiser, towards(middle, denoised), middle))
        report_step(callback, i, sigmas, x, denoised)
    return x
