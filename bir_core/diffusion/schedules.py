"""Noise levels: what Stable Diffusion 2.1 was trained on, and the tables that samplers walk down.

abar_t is the product of 1 - beta up to timestep t, so x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps
(variance-preserving form, VP); sigma_t = sqrt((1 - abar_t) / abar_t) is the noise level of the
variance-exploding form (VE), x0 + sigma eps. Tables are made in float64.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import BIRError

TRAINED_STEPS = 1000
# The official EDM samplers replace the first abar by this, whatever the model was trained on.
EDM_FIRST_ALPHA_CUMPROD = 1e-8
# Below this log signal-to-noise ratio the official DPM-Solver leaves entries out.
DPM_LOWEST_LAMBDA = -5.1

SchedulePlan = Literal["spaced", "ddim", "dpm", "edm"]


def sd_betas() -> Tensor:
    """The 1000 betas of Stable Diffusion, linspace(sqrt(0.00085), sqrt(0.012))^2, float64."""
    return torch.linspace(0.00085**0.5, 0.012**0.5, TRAINED_STEPS, dtype=torch.float64) ** 2


def zero_terminal_snr(betas: Tensor) -> Tensor:
    """Rescale betas (N,) so that the last timestep is noise alone: abar[N-1] = 0 and the last beta
    is 1 (Lin et al. 2024, "Common Diffusion Noise Schedules and Sample Steps are Flawed",
    algorithm 1). DiffBIR v2.1 is trained on this."""
    root = torch.cumprod(1 - betas, dim=0).sqrt()
    root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    abar = root**2
    return 1 - abar / torch.cat([abar.new_ones(1), abar[:-1]])


def sd_alphas_cumprod(zero_snr: bool = False) -> Tensor:
    """abar of the 1000 trained timesteps, (1000,) float64, descending.

    Args:
        zero_snr: False for the plain schedule of SD 2.1 (DiffBIR v1 and v2), True for v2.1.
    """
    betas = sd_betas()
    return torch.cumprod(1 - (zero_terminal_snr(betas) if zero_snr else betas), dim=0)


def sigmas_from_alphas_cumprod(alphas_cumprod: Tensor) -> Tensor:
    """sqrt((1 - abar) / abar), same shape and dtype; infinite where abar is 0."""
    return ((1 - alphas_cumprod) / alphas_cumprod).sqrt()


def alphas_cumprod_from_sigmas(sigmas: Tensor) -> Tensor:
    """1 / (1 + sigma^2), same shape and dtype; 0 where sigma is infinite."""
    return 1 / (1 + sigmas**2)


def q_sample(x0: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """sqrt(abar) x0 + sqrt(1 - abar) noise: the noisy latent of the forward process.

    Args:
        x0, noise: (B, C, h, w).
        alphas_cumprod: abar of each sample's timestep, (B,) or a scalar.
    """
    abar = alphas_cumprod.reshape(-1, 1, 1, 1)
    return abar.sqrt().to(x0) * x0 + (1 - abar).sqrt().to(x0) * noise


def v_target(x0: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """sqrt(abar) noise - sqrt(1 - abar) x0: what a v-prediction network is to give (Salimans and
    Ho 2022, "Progressive Distillation"). Arguments as in `q_sample`."""
    abar = alphas_cumprod.reshape(-1, 1, 1, 1)
    return abar.sqrt().to(x0) * noise - (1 - abar).sqrt().to(x0) * x0


@dataclass(frozen=True)
class SamplingSchedule:
    """The levels that a sampler visits, the noisiest first; the last is where it ends.

    timesteps: (K + 1,), what the network is told at each level; the last one is not evaluated.
    alphas_cumprod: (K + 1,) float64.
    """

    timesteps: Tensor
    alphas_cumprod: Tensor

    @property
    def sigmas(self) -> Tensor:
        """(K + 1,) float32, as the samplers take them."""
        return sigmas_from_alphas_cumprod(self.alphas_cumprod).float()

    @property
    def levels(self) -> list[tuple[float, float]]:
        """(sigma, timestep) of each level."""
        return list(zip(self.sigmas.tolist(), self.timesteps.tolist(), strict=True))


def _check_steps(steps: int, most: int) -> None:
    if not 1 <= steps <= most:
        raise BIRError(
            f"The number of sampling steps should lie between 1 and {most}, but {steps} came; "
            "choose one in this range."
        )


def spaced_timesteps(steps: int) -> list[int]:
    """Evenly spaced trained timesteps with both ends, ascending: 10 gives 0, 111, ..., 999.

    The position is accumulated and rounded half to even, as in the official code; one step, where
    that fails, is the last timestep.
    """
    _check_steps(steps, TRAINED_STEPS)
    if steps == 1:
        return [TRAINED_STEPS - 1]
    stride = (TRAINED_STEPS - 1) / (steps - 1)
    position, timesteps = 0.0, []
    for _ in range(steps):
        timesteps.append(round(position))
        position += stride
    return timesteps


def ddim_timesteps(steps: int) -> list[int]:
    """The timesteps of the official DDIM sampler, ascending: 10 gives 1, 101, ..., 901.

    Where `steps` does not divide 1000 there are more of them than asked for.

    Raises:
        BIRError: a number of steps for which the rule runs past the last trained timestep.
    """
    _check_steps(steps, TRAINED_STEPS)
    timesteps = [t + 1 for t in range(0, TRAINED_STEPS, TRAINED_STEPS // steps)]
    if timesteps[-1] >= TRAINED_STEPS:
        raise BIRError(
            f"The DDIM timesteps of DiffBIR should end below {TRAINED_STEPS}, but {steps} steps "
            "run past it; choose a number of steps that divides 1000."
        )
    return timesteps


def _spaced(alphas_cumprod: Tensor, steps: int) -> SamplingSchedule:
    timesteps = torch.tensor([*reversed(spaced_timesteps(steps)), 0])
    abar = torch.cat([alphas_cumprod[timesteps[:-1]], alphas_cumprod.new_ones(1)])
    return SamplingSchedule(timesteps, abar)


def _ddim(alphas_cumprod: Tensor, steps: int) -> SamplingSchedule:
    timesteps = torch.tensor([*reversed(ddim_timesteps(steps)), 0])
    return SamplingSchedule(timesteps, alphas_cumprod[timesteps])


def edm_timesteps(steps: int) -> list[int]:
    """The timesteps of the official EDM samplers, descending, rounded down: 10 gives 999, 899, ...,
    99."""
    _check_steps(steps, TRAINED_STEPS)
    stride = -(TRAINED_STEPS - 1) / steps
    return [int(i * stride + TRAINED_STEPS - 1) for i in range(steps)]


def _edm(alphas_cumprod: Tensor, steps: int) -> SamplingSchedule:
    timesteps = torch.tensor([*edm_timesteps(steps), 0])
    abar = alphas_cumprod[timesteps]
    abar[0] = EDM_FIRST_ALPHA_CUMPROD
    abar[-1] = 1
    return SamplingSchedule(timesteps, abar)


def _dpm(alphas_cumprod: Tensor, steps: int) -> SamplingSchedule:
    """Uniform in time, log alpha linear between the trained entries (Lu et al. 2022, "DPM-Solver",
    appendix on discrete models). It ends at the first trained level, not at the clean image."""
    _check_steps(steps, TRAINED_STEPS)
    before = torch.cat([alphas_cumprod.new_ones(1), alphas_cumprod[:-1]])
    betas = (1 - alphas_cumprod / before).float()
    log_alphas = 0.5 * torch.log(1 - betas).cumsum(0)
    lambdas = log_alphas - 0.5 * torch.log(1 - torch.exp(2 * log_alphas))
    kept = int((lambdas >= DPM_LOWEST_LAMBDA).sum())
    log_alphas = log_alphas[:kept].double()
    t = torch.linspace(1.0, 1.0 / kept, steps + 1, dtype=torch.float32).double()
    position = (t * kept - 1).clamp(0, kept - 1)
    lower = position.floor().long().clamp(max=kept - 2)
    log_alpha = torch.lerp(log_alphas[lower], log_alphas[lower + 1], position - lower)
    return SamplingSchedule(((t - 1 / kept) * TRAINED_STEPS).float(), torch.exp(2 * log_alpha))


_PLANS = {"spaced": _spaced, "ddim": _ddim, "edm": _edm, "dpm": _dpm}


def sampling_schedule(plan: SchedulePlan, alphas_cumprod: Tensor, steps: int) -> SamplingSchedule:
    """The levels of the official DiffBIR samplers.

    Args:
        plan: "spaced" (both ends of the trained timesteps, down to the clean image), "ddim" (ends
            at the first trained level), "edm" (starts at sigma 1e4, down to the clean image) or
            "dpm" (time uniform and not whole, ends at the first trained level).
        alphas_cumprod: (1000,), of `sd_alphas_cumprod`.
        steps: network evaluations at the least.

    Raises:
        BIRError: an impossible number of steps.
    """
    return _PLANS[plan](alphas_cumprod.double(), steps)


def model_sigmas(plan: SchedulePlan, sigmas: Tensor, steps: int, denoise: float = 1.0) -> Tensor:
    """The sigmas of a plan from a model's own table, as a host's samplers take them.

    Args:
        plan: as in `sampling_schedule`.
        sigmas: (1000,) ascending, sigma of each trained timestep.
        steps: number of steps to walk.
        denoise: below 1 the walk starts later: the last `steps` steps of a schedule of
            steps / denoise; 0 gives no step at all.

    Returns:
        (steps + 1,) descending, like `sigmas`; an empty tensor for denoise 0.

    Raises:
        BIRError: an impossible number of steps.
    """
    if denoise <= 0:
        return sigmas.new_zeros(0)
    # Float64 gives the float32 numbers of the table back as they were.
    abar = alphas_cumprod_from_sigmas(sigmas.double())
    walked = sampling_schedule(plan, abar, int(steps / min(denoise, 1.0))).sigmas
    return walked[-(steps + 1) :].to(sigmas)
