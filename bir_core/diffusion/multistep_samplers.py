"""Samplers that remember: a step also uses the clean estimates, or the slopes, of those before.

What holds for `samplers` holds here.
"""

import math
from itertools import pairwise

from torch import Tensor

from ..errors import BIRError
from .denoisers import Denoiser
from .noise import Interval, NoiseSampler
from .samplers import Callback, report_step, slope_at


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
    levels = sigmas.tolist()
    steps = len(levels) - 1
    before = None
    for i in range(steps):
        denoised = denoiser(x, levels[i])
        estimate = denoised
        first_order = levels[i + 1] == 0 or (lower_order_last and i == steps - 1)
        if before is not None and not first_order:
            r = math.log(levels[i - 1] / levels[i]) / math.log(levels[i] / levels[i + 1])
            estimate = denoised + (denoised - before) / (2 * r)
        ratio = levels[i + 1] / levels[i]
        x = ratio * x + (1 - ratio) * estimate
        before = denoised
        report_step(callback, i, levels, x, denoised)
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
    levels = sigmas.tolist()
    slopes: list[Tensor] = []  # the latest first
    for i in range(len(levels) - 1):
        denoised = denoiser(x, levels[i])
        slopes = [slope_at(x, denoised, levels[i]), *slopes[: int(order) - 1]]
        for weight, slope in zip(_multistep_weights(levels, i, len(slopes)), slopes, strict=True):
            x = x + weight * slope
        report_step(callback, i, levels, x, denoised)
    return x


def step_intervals(sigmas: Tensor) -> list[Interval]:
    """What the two samplers below ask their noise for; a step to 0 has none."""
    return [(high, low) for high, low in pairwise(sigmas.tolist()) if low > 0]


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
    levels = sigmas.tolist()
    before, h_before = None, 0.0
    for i in range(len(levels) - 1):
        denoised = denoiser(x, levels[i])
        if levels[i + 1] == 0:
            x = denoised
        else:
            h = math.log(levels[i] / levels[i + 1])
            decay = -math.expm1(-h * (1 + eta))
            kept = levels[i + 1] / levels[i] * math.exp(-h * eta)
            x = kept * x + decay * denoised
            if before is not None:
                x = x + (0.5 * decay * h / h_before) * (denoised - before)
            if eta > 0:
                deviation = levels[i + 1] * math.sqrt(-math.expm1(-2 * eta * h)) * s_noise
                x = x + noise_sampler(levels[i], levels[i + 1]) * deviation
            h_before = h
        before = denoised
        report_step(callback, i, levels, x, denoised)
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
    levels = sigmas.tolist()
    memory: list[Tensor] = []  # the estimates of the two steps before, the latest first
    lengths: list[float] = []  # and the lengths of those steps
    for i in range(len(levels) - 1):
        denoised = denoiser(x, levels[i])
        if levels[i + 1] == 0:
            x = denoised
            report_step(callback, i, levels, x, denoised)
            continue
        h = math.log(levels[i] / levels[i + 1])
        h_eta = h * (1 + eta)
        phi1 = math.expm1(-h_eta)
        phi2 = phi1 / h_eta + 1
        x = math.exp(-h_eta) * x - phi1 * denoised
        if len(memory) == 1:
            x = x + (phi2 * h / lengths[0]) * (denoised - memory[0])
        elif len(memory) == 2:
            r0, r1 = lengths[0] / h, lengths[1] / h
            d1_0 = (denoised - memory[0]) / r0
            d1_1 = (memory[0] - memory[1]) / r1
            d1 = d1_0 + (d1_0 - d1_1) * (r0 / (r0 + r1))
            d2 = (d1_0 - d1_1) / (r0 + r1)
            x = x + phi2 * d1 - (phi2 / h_eta - 0.5) * d2
        if eta > 0:
            deviation = levels[i + 1] * math.sqrt(-math.expm1(-2 * h * eta)) * s_noise
            x = x + noise_sampler(levels[i], levels[i + 1]) * deviation
        memory, lengths = [denoised, *memory[:1]], [h, *lengths[:1]]
        report_step(callback, i, levels, x, denoised)
    return x
