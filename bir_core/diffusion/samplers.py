"""Samplers as functions: a denoiser, the noisy start and the levels in, the latent out.

x stands in the variance-exploding form, x0 + sigma noise (noise alone at an infinite sigma); enter
it with `scale_noise` and leave it with `unscale`. Levels descend; arithmetic on them is float32 as
in the official code, whose first ancestral step from sigma 1e4 depends on it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .denoisers import Denoiser
from .noise import NoiseSampler
from .schedules import alphas_cumprod_from_sigmas


@dataclass(frozen=True)
class Step:
    """What a callback is told after a step: its number from 0, the number of steps, x after it and
    the clean estimate it used."""

    index: int
    steps: int
    x: Tensor
    denoised: Tensor


Callback = Callable[[Step], None]


def _root(sigma: Tensor) -> Tensor:
    """sqrt(1 + sigma^2), the factor between the two forms; 1 where x is noise alone."""
    return (1 + sigma**2).sqrt() if torch.isfinite(sigma) else torch.ones_like(sigma)


def scale_noise(x: Tensor, sigma: Tensor) -> Tensor:
    """From the variance-preserving form (unit noise x_T at the start) to the samplers' form."""
    return x * _root(sigma).to(x)


def unscale(x: Tensor, sigma: Tensor) -> Tensor:
    """The reverse of `scale_noise`, for schedules that do not end at the clean latent."""
    return x / _root(sigma).to(x)


def denoise_at(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Tensor:
    """The clean estimate of a batch at one level."""
    return denoiser(x, sigma.to(x.device).expand(x.shape[0]))


def slope_at(x: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
    """dx / dsigma of the probability flow at one level (Karras et al. 2022, eq. 3)."""
    return (x - denoised) / sigma.to(x)


def report_step(
    callback: Callback | None, index: int, sigmas: Tensor, x: Tensor, denoised: Tensor
) -> None:
    """Tell a callback of the step from sigmas[index]."""
    if callback is not None:
        callback(Step(index, len(sigmas) - 1, x, denoised))


def sample_spaced(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise_sampler: NoiseSampler,
    callback: Callback | None = None,
) -> Tensor:
    """The ancestral sampler of DDPM on a part of the timesteps (Ho et al. 2020, eq. 7; Nichol and
    Dhariwal 2021 for the spacing); the only one of DiffBIR v1 and v2.

    Args:
        denoiser: (x, sigma (B,)) -> denoised, its conditions bound.
        x: (B, C, h, w).
        sigmas: (K + 1,) descending; the first may be infinite, the last 0.
        noise_sampler: called once for every step, the last included, where its draw has no weight.
        callback: called after each step; it may raise to cancel.

    Returns:
        The latent at the last level, (B, C, h, w).
    """
    abar = alphas_cumprod_from_sigmas(sigmas.cpu().double())
    for i in range(len(sigmas) - 1):
        denoised = denoise_at(denoiser, x, sigmas[i])
        beta = 1 - abar[i] / abar[i + 1]
        c1 = beta * abar[i + 1].sqrt() / (1 - abar[i])
        c2 = (1 - abar[i + 1]) * (1 - beta).sqrt() / (1 - abar[i])
        variance = beta * (1 - abar[i + 1]) / (1 - abar[i])
        noise = noise_sampler(sigmas[i], sigmas[i + 1])
        mean = c1.to(x) * denoised + c2.to(x) * unscale(x, sigmas[i])
        x = scale_noise(mean + variance.sqrt().to(x) * noise, sigmas[i + 1])
        report_step(callback, i, sigmas, x, denoised)
    return x


def sample_ddim(
    denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, callback: Callback | None = None
) -> Tensor:
    """DDIM without noise (Song et al. 2021, eq. 12 with sigma 0). Arguments as `sample_spaced`."""
    abar = alphas_cumprod_from_sigmas(sigmas.cpu().double())
    for i in range(len(sigmas) - 1):
        denoised = denoise_at(denoiser, x, sigmas[i])
        signal = abar[i].sqrt().to(x) * denoised
        eps = (unscale(x, sigmas[i]) - signal) / (1 - abar[i]).sqrt().to(x)
        step = abar[i + 1].sqrt().to(x) * denoised + (1 - abar[i + 1]).sqrt().to(x) * eps
        x = scale_noise(step, sigmas[i + 1])
        report_step(callback, i, sigmas, x, denoised)
    return x


@dataclass(frozen=True)
class Churn:
    """Settings of the new noise of Karras et al. 2022, algorithm 2."""

    s_churn: float
    s_tmin: float
    s_tmax: float
    s_noise: float

    def raised(
        self,
        x: Tensor,
        sigma: Tensor,
        sigma_next: Tensor,
        steps: int,
        noise_sampler: NoiseSampler | None,
    ) -> tuple[Tensor, Tensor]:
        """x and its level after noise took it from sigma to sigma (1 + gamma)."""
        if self.s_churn == 0 or noise_sampler is None:
            return x, sigma
        noise = noise_sampler(sigma, sigma_next) * self.s_noise
        if not self.s_tmin <= float(sigma) <= self.s_tmax:
            return x, sigma
        sigma_hat = sigma * (1 + min(self.s_churn / steps, 2**0.5 - 1))
        return x + noise * (sigma_hat**2 - sigma**2).sqrt().to(x), sigma_hat


def sample_euler(
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
    """Euler steps of the probability flow (Karras et al. 2022, algorithm 2 without its second
    order).

    Args:
        denoiser, x, callback: as in `sample_spaced`.
        sigmas: (K + 1,) descending, finite.
        noise_sampler: called once for every step where s_churn is above 0; not needed otherwise.
        s_churn: new noise at each step, K times the relative rise of the level.
        s_tmin, s_tmax: levels between which there is churn.
        s_noise: factor of that noise.
    """
    steps = len(sigmas) - 1
    churn = Churn(s_churn, s_tmin, s_tmax, s_noise)
    for i in range(steps):
        x, sigma_hat = churn.raised(x, sigmas[i], sigmas[i + 1], steps, noise_sampler)
        denoised = denoise_at(denoiser, x, sigma_hat)
        slope = slope_at(x, denoised, sigma_hat)
        x = x + slope * (sigmas[i + 1] - sigma_hat).to(x)
        report_step(callback, i, sigmas, x, denoised)
    return x


def sample_heun(
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
    """Heun steps of the probability flow (Karras et al. 2022, algorithm 2); two evaluations a step,
    one in a step to 0. Arguments as in `sample_euler`."""
    steps = len(sigmas) - 1
    churn = Churn(s_churn, s_tmin, s_tmax, s_noise)
    for i in range(steps):
        x, sigma_hat = churn.raised(x, sigmas[i], sigmas[i + 1], steps, noise_sampler)
        denoised = denoise_at(denoiser, x, sigma_hat)
        slope = slope_at(x, denoised, sigma_hat)
        dt = (sigmas[i + 1] - sigma_hat).to(x)
        euler = x + slope * dt
        if sigmas[i + 1] == 0:
            x = euler
        else:
            ahead = denoise_at(denoiser, euler, sigmas[i + 1])
            slope_ahead = slope_at(euler, ahead, sigmas[i + 1])
            x = x + (slope + slope_ahead) / 2 * dt
        report_step(callback, i, sigmas, x, denoised)
    return x


def ancestral_levels(sigma: Tensor, sigma_next: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """(sigma_down, sigma_up): the level to step down to and the deviation of the noise that then
    brings it up to sigma_next. The order of operations is the official one."""
    variance = sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2
    sigma_up = torch.minimum(sigma_next, eta * variance**0.5)
    return (sigma_next**2 - sigma_up**2) ** 0.5, sigma_up


def add_ancestral(
    x: Tensor, sigmas: Tensor, sigma_up: Tensor, s_noise: float, noise_sampler: NoiseSampler
) -> Tensor:
    """x after the noise of a step from sigmas[0] to sigmas[1], which a step to 0 has none of."""
    if sigmas[1] == 0:
        return x
    return x + noise_sampler(sigmas[0], sigmas[1]) * s_noise * sigma_up.to(x)


def sample_euler_ancestral(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise_sampler: NoiseSampler,
    eta: float = 1.0,
    s_noise: float = 1.0,
    callback: Callback | None = None,
) -> Tensor:
    """Euler steps to a lower level, then noise up to the wanted one.

    Args:
        denoiser, x, callback: as in `sample_spaced`.
        sigmas: (K + 1,) descending, finite.
        noise_sampler: called for each step that does not end at 0.
        eta: 0 no new noise, 1 as much as in DDPM.
        s_noise: factor of the noise.
    """
    for i in range(len(sigmas) - 1):
        denoised = denoise_at(denoiser, x, sigmas[i])
        sigma_down, sigma_up = ancestral_levels(sigmas[i], sigmas[i + 1], eta)
        slope = slope_at(x, denoised, sigmas[i])
        x = x + slope * (sigma_down - sigmas[i]).to(x)
        x = add_ancestral(x, sigmas[i : i + 2], sigma_up, s_noise, noise_sampler)
        report_step(callback, i, sigmas, x, denoised)
    return x
