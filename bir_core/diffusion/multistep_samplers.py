"""Samplers that remember: a step also uses the clean estimates, or the slopes, of those before.

What holds for `samplers` holds here.
"""

import torch
from torch import Tensor

from ..errors import BIRError
from .denoisers import Denoiser
from .noise import NoiseSampler
from .samplers import Callback, denoise_at, report_step


def sample_dpmpp_2m(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    lower_order_last: bool = False,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), lambda = -log sigma.

    Args:
        denoiser, x, callback: as in `sample_spaced`.
        sigmas: (K + 1,) descending, finite. A step to 0 is of first order.
        lower_order_last: make the last step one of first order in any case, as the official
            dpm++_m2 does below 10 steps.
    """
    steps = len(sigmas) - 1
    before = None
    for i in range(steps):
        denoised = denoise_at(denoiser, x, sigmas[i])
        h = (sigmas[i] / sigmas[i + 1]).log()
        estimate = denoised
        first_order = sigmas[i + 1] == 0 or (lower_order_last and i == steps - 1)
        if before is not None and not first_order:
            r = (sigmas[i - 1] / sigmas[i]).log() / h
            estimate = denoised + (denoised - before) / (2 * r).to(x)
        ratio = sigmas[i + 1] / sigmas[i]
        x = ratio.to(x) * x - torch.expm1(-h).to(x) * estimate
        before = denoised
        report_step(callback, i, sigmas, x, denoised)
    return x


def sample_dpmpp_m2(
    denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, callback: Callback | None = None
) -> Tensor:
    """DPM-Solver++(2M) as the official dpm++_m2 has it: with a last step of first order where there
    are less than 10. Arguments as in `sample_dpmpp_2m`."""
    few = len(sigmas) - 1 < 10
    return sample_dpmpp_2m(denoiser, x, sigmas, lower_order_last=few, callback=callback)


def _multistep_weights(sigmas: list[float], start: int, order: int) -> list[float]:
    """Integrals from sigmas[start] to the next level of the Lagrange polynomials through the last
    `order` levels, the latest first."""
    weights = []
    for own in range(order):
        polynomial = [1.0]  # coefficients, the constant first
        for other in range(order):
            if other == own:
                continue
            root, scale = sigmas[start - other], sigmas[start - own] - sigmas[start - other]
            shifted, lowered = [0.0, *polynomial], [root * each for each in polynomial] + [0.0]
            polynomial = [(up - down) / scale for up, down in zip(shifted, lowered, strict=True)]
        weights.append(
            sum(
                each
                / (power + 1)
                * (sigmas[start + 1] ** (power + 1) - sigmas[start] ** (power + 1))
                for power, each in enumerate(polynomial)
            )
        )
    return weights


def require_order(order: float) -> None:
    """Raise BIRError for what cannot be the order of `sample_lms`."""
    if order not in range(1, 9):
        raise BIRError(
            f"The order of lms should be a whole number from 1 to 8, but {order:g} came; choose "
            "one of these."
        )


def sample_lms(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    order: float = 1.0,
    callback: Callback | None = None,
) -> Tensor:
    """Linear multistep (Adams-Bashforth) of the probability flow over sigma.

    Args:
        denoiser, x, callback: as in `sample_spaced`.
        sigmas: (K + 1,) descending, finite.
        order: how many of the last slopes count, a whole number from 1 to 8; 1 is `sample_euler`.

    Raises:
        BIRError: another order.
    """
    require_order(order)
    levels = sigmas.double().tolist()
    slopes: list[Tensor] = []  # the latest first
    for i in range(len(sigmas) - 1):
        denoised = denoise_at(denoiser, x, sigmas[i])
        slopes = [(x - denoised) / sigmas[i].to(x), *slopes[: int(order) - 1]]
        for weight, slope in zip(_multistep_weights(levels, i, len(slopes)), slopes, strict=True):
            x = x + weight * slope
        report_step(callback, i, sigmas, x, denoised)
    return x


def sample_dpmpp_2m_sde(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise_sampler: NoiseSampler,
    eta: float = 1.0,
    s_noise: float = 1.0,
    callback: Callback | None = None,
) -> Tensor:
    """SDE-DPM-Solver++(2M), midpoint form (Lu et al. 2022, eq. 19 ff.). Arguments as in
    `sample_euler_ancestral`."""
    before = None
    h_before = sigmas.new_zeros(())
    for i in range(len(sigmas) - 1):
        denoised = denoise_at(denoiser, x, sigmas[i])
        if sigmas[i + 1] == 0:
            x = denoised
        else:
            h = (sigmas[i] / sigmas[i + 1]).log()
            decay = torch.expm1(-h * (1 + eta)).neg().to(x)
            kept = sigmas[i + 1] / sigmas[i] * (-h * eta).exp()
            x = kept.to(x) * x + decay * denoised
            if before is not None:
                x = x + 0.5 * decay * (denoised - before) / (h_before / h).to(x)
            if eta > 0:
                deviation = sigmas[i + 1] * torch.expm1(-2 * eta * h).neg().sqrt() * s_noise
                x = x + noise_sampler(sigmas[i], sigmas[i + 1]) * deviation.to(x)
            h_before = h
        before = denoised
        report_step(callback, i, sigmas, x, denoised)
    return x


def sample_dpmpp_3m_sde(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise_sampler: NoiseSampler,
    eta: float = 1.0,
    s_noise: float = 1.0,
    callback: Callback | None = None,
) -> Tensor:
    """SDE-DPM-Solver++(3M): the same with the two last estimates; the default of DiffBIR v2.1.
    Arguments as in `sample_euler_ancestral`."""
    memory: list[Tensor] = []  # the estimates of the two steps before, the latest first
    lengths: list[Tensor] = []  # and the lengths of those steps
    for i in range(len(sigmas) - 1):
        denoised = denoise_at(denoiser, x, sigmas[i])
        if sigmas[i + 1] == 0:
            x = denoised
            report_step(callback, i, sigmas, x, denoised)
            continue
        h = (sigmas[i] / sigmas[i + 1]).log()
        h_eta = h * (1 + eta)
        phi1 = torch.expm1(-h_eta)
        phi2 = phi1 / h_eta + 1
        x = (-h_eta).exp().to(x) * x - phi1.to(x) * denoised
        if len(memory) == 1:
            slope = (denoised - memory[0]) / (lengths[0] / h).to(x)
            x = x + phi2.to(x) * slope
        elif len(memory) == 2:
            r0, r1 = lengths[0] / h, lengths[1] / h
            d1_0 = (denoised - memory[0]) / r0.to(x)
            d1_1 = (memory[0] - memory[1]) / r1.to(x)
            d1 = d1_0 + (d1_0 - d1_1) * (r0 / (r0 + r1)).to(x)
            d2 = (d1_0 - d1_1) / (r0 + r1).to(x)
            x = x + phi2.to(x) * d1 - (phi2 / h_eta - 0.5).to(x) * d2
        if eta > 0:
            deviation = sigmas[i + 1] * torch.expm1(-2 * h * eta).neg().sqrt() * s_noise
            x = x + noise_sampler(sigmas[i], sigmas[i + 1]) * deviation.to(x)
        memory, lengths = [denoised, *memory[:1]], [h, *lengths[:1]]
        report_step(callback, i, sigmas, x, denoised)
    return x
