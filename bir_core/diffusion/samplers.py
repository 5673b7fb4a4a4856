"""Samplers as functions: a denoiser, the noisy start and the levels in, the latent out.

x stands in the variance-exploding form, x0 + sigma noise (noise alone at an infinite sigma); enter
it with `scale_noise` and leave it with `unscale`. Levels descend. The numbers that follow from them
are made before the first step and stay on the host, so that no step waits for the device that
computes the latent.
"""

import math
from collections.abc import Callable, Sequence
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


def _root(sigma: float) -> float:
    """sqrt(1 + sigma^2), the factor between the two forms; 1 where x is noise alone."""
    return math.sqrt(1 + sigma**2) if math.isfinite(sigma) else 1.0


def scale_noise(x: Tensor, sigma: float) -> Tensor:
    """From the variance-preserving form (unit noise x_T at the start) to the samplers' form."""
    return x * _root(sigma)


def unscale(x: Tensor, sigma: float) -> Tensor:
    """The reverse of `scale_noise`, for schedules that do not end at the clean latent."""
    return x / _root(sigma)


def slope_at(x: Tensor, denoised: Tensor, sigma: float) -> Tensor:
    """dx / dsigma of the probability flow at one level (Karras et al. 2022, eq. 3)."""
    return (x - denoised) / sigma


def report_step(
    callback: Callback | None, index: int, sigmas: Sequence[float], x: Tensor, denoised: Tensor
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
        denoiser: (x, sigma) -> denoised, its conditions bound.
        x: (B, C, h, w).
        sigmas: (K + 1,) descending; the first may be infinite, the last 0.
        noise_sampler: called once for every step, the last included, where its draw has no weight.
        callback: called after each step; it may raise to cancel.

    Returns:
        The latent at the last level, (B, C, h, w).
    """
    levels = sigmas.tolist()
    abar = alphas_cumprod_from_sigmas(torch.tensor(levels, dtype=torch.float64))
    now, later = abar[:-1], abar[1:]
    beta = 1 - now / later
    c1 = (beta * later.sqrt() / (1 - now)).tolist()
    c2 = ((1 - later) * (1 - beta).sqrt() / (1 - now)).tolist()
    deviation = (beta * (1 - later) / (1 - now)).sqrt().tolist()
    for i in range(len(levels) - 1):
        denoised = denoiser(x, levels[i])
        noise = noise_sampler(levels[i], levels[i + 1])
        mean = c1[i] * denoised + c2[i] * unscale(x, levels[i])
        x = scale_noise(mean + deviation[i] * noise, levels[i + 1])
        report_step(callback, i, levels, x, denoised)
    return x


def sample_ddim(
    denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, callback: Callback | None = None
) -> Tensor:
    """DDIM without noise (Song et al. 2021, eq. 12 with sigma 0). Arguments as `sample_spaced`."""
    levels = sigmas.tolist()
    abar = alphas_cumprod_from_sigmas(torch.tensor(levels, dtype=torch.float64))
    signal, spread = abar.sqrt().tolist(), (1 - abar).sqrt().tolist()
    for i in range(len(levels) - 1):
        denoised = denoiser(x, levels[i])
        eps = (unscale(x, levels[i]) - signal[i] * denoised) / spread[i]
        x = scale_noise(signal[i + 1] * denoised + spread[i + 1] * eps, levels[i + 1])
        report_step(callback, i, levels, x, denoised)
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
        sigma: float,
        sigma_next: float,
        steps: int,
        noise_sampler: NoiseSampler | None,
    ) -> tuple[Tensor, float]:
        """x and its level after noise took it from sigma to sigma (1 + gamma)."""
        if self.s_churn == 0 or noise_sampler is None:
            return x, sigma
        noise = noise_sampler(sigma, sigma_next) * self.s_noise
        if not self.s_tmin <= sigma <= self.s_tmax:
            return x, sigma
        sigma_hat = sigma * (1 + min(self.s_churn / steps, 2**0.5 - 1))
        return x + noise * math.sqrt(sigma_hat**2 - sigma**2), sigma_hat


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
    levels = sigmas.tolist()
    steps = len(levels) - 1
    churn = Churn(s_churn, s_tmin, s_tmax, s_noise)
    for i in range(steps):
        x, sigma_hat = churn.raised(x, levels[i], levels[i + 1], steps, noise_sampler)
        denoised = denoiser(x, sigma_hat)
        x = x + slope_at(x, denoised, sigma_hat) * (levels[i + 1] - sigma_hat)
        report_step(callback, i, levels, x, denoised)
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
    levels = sigmas.tolist()
    steps = len(levels) - 1
    churn = Churn(s_churn, s_tmin, s_tmax, s_noise)
    for i in range(steps):
        x, sigma_hat = churn.raised(x, levels[i], levels[i + 1], steps, noise_sampler)
        denoised = denoiser(x, sigma_hat)
        slope = slope_at(x, denoised, sigma_hat)
        dt = levels[i + 1] - sigma_hat
        euler = x + slope * dt
        if levels[i + 1] == 0:
            x = euler
        else:
            ahead = denoiser(euler, levels[i + 1])
            slope_ahead = slope_at(euler, ahead, levels[i + 1])
            x = x + (slope + slope_ahead) / 2 * dt
        report_step(callback, i, levels, x, denoised)
    return x


def ancestral_levels(
    sigmas: Tensor, sigmas_next: Tensor, eta: float
) -> tuple[list[float], list[float]]:
    """(sigma_down, sigma_up) of each step (K,) from a level to the next: the level to step down to,
    and the deviation of the noise that then brings it up to the next. The order of operations is
    the official one and float32 its type: what is left of a step from sigma 1e4 is rounding."""
    variances = sigmas_next**2 * (sigmas**2 - sigmas_next**2) / sigmas**2
    up = torch.minimum(sigmas_next, eta * variances**0.5)
    return ((sigmas_next**2 - up**2) ** 0.5).tolist(), up.tolist()


def add_ancestral(
    x: Tensor,
    sigma: float,
    sigma_next: float,
    sigma_up: float,
    s_noise: float,
    noise_sampler: NoiseSampler,
) -> Tensor:
    """x after the noise of a step, which a step to 0 has none of."""
    if sigma_next == 0:
        return x
    return x + noise_sampler(sigma, sigma_next) * (s_noise * sigma_up)


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
    levels = sigmas.tolist()
    down, up = ancestral_levels(sigmas[:-1], sigmas[1:], eta)
    for i in range(len(levels) - 1):
        denoised = denoiser(x, levels[i])
        x = x + slope_at(x, denoised, levels[i]) * (down[i] - levels[i])
        x = add_ancestral(x, levels[i], levels[i + 1], up[i], s_noise, noise_sampler)
        report_step(callback, i, levels, x, denoised)
    return x
