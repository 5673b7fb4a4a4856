"""The samplers by name, each with the schedule that the official code gives it."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ..errors import BIRError
from . import midpoint_samplers, multistep_samplers, samplers
from .noise import NoiseSampler
from .schedules import SchedulePlan

# (denoiser, x, sigmas, *, noise_sampler, options, callback) -> latent
SamplerFunction = Callable[..., Tensor]


@dataclass(frozen=True)
class NamedSampler:
    """A sampler function and the levels that it walks down.

    Attributes:
        brownian: the official code and ComfyUI draw its noise from one Brownian path over the
            levels, see `noise.brownian_noise`, and not anew at each step.
    """

    plan: SchedulePlan
    function: SamplerFunction
    brownian: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """Its numbers that can be set: some of eta, s_noise, s_churn, s_tmin, s_tmax, order."""
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(one.name for one in parameters if isinstance(one.default, float))

    def run(
        self,
        denoiser: Callable[..., Tensor],
        x: Tensor,
        sigmas: Tensor,
        *,
        noise_sampler: NoiseSampler,
        options: Mapping[str, float],
        callback: samplers.Callback | None = None,
    ) -> Tensor:
        """Sample; the noise goes to a sampler that draws some. Arguments as in `samplers`."""
        settings: dict[str, object] = dict(options)
        if "noise_sampler" in inspect.signature(self.function).parameters:
            settings["noise_sampler"] = noise_sampler
        return self.function(denoiser, x, sigmas, callback=callback, **settings)


SAMPLERS = {
    "spaced": NamedSampler("spaced", samplers.sample_spaced),
    "ddim": NamedSampler("ddim", samplers.sample_ddim),
    "euler": NamedSampler("edm", samplers.sample_euler),
    "euler_ancestral": NamedSampler("edm", samplers.sample_euler_ancestral),
    "heun": NamedSampler("edm", samplers.sample_heun),
    "dpm_2": NamedSampler("edm", midpoint_samplers.sample_dpm_2),
    "dpm_2_ancestral": NamedSampler("edm", midpoint_samplers.sample_dpm_2_ancestral),
    "lms": NamedSampler("edm", multistep_samplers.sample_lms),
    "dpmpp_m2": NamedSampler("dpm", multistep_samplers.sample_dpmpp_m2),
    "dpmpp_2s_ancestral": NamedSampler("edm", midpoint_samplers.sample_dpmpp_2s_ancestral),
    "dpmpp_sde": NamedSampler("edm", midpoint_samplers.sample_dpmpp_sde, brownian=True),
    "dpmpp_2m": NamedSampler("edm", multistep_samplers.sample_dpmpp_2m),
    "dpmpp_2m_sde": NamedSampler("edm", multistep_samplers.sample_dpmpp_2m_sde, brownian=True),
    "dpmpp_3m_sde": NamedSampler("edm", multistep_samplers.sample_dpmpp_3m_sde, brownian=True),
}


def named_sampler(name: str, options: Mapping[str, float]) -> NamedSampler:
    """The sampler of a name.

    Raises:
        BIRError: an unknown name, an option that this sampler does not have, or an order that
            it cannot have.
    """
    sampler = SAMPLERS.get(name)
    if sampler is None:
        raise BIRError(
            f"Expected one of the samplers {', '.join(SAMPLERS)}, but {name!r} came; choose one of "
            "these."
        )
    unknown = [option for option in options if option not in sampler.options]
    if unknown:
        known = ", ".join(sampler.options) or "none"
        raise BIRError(
            f"The sampler {name} has the options {known}, but {unknown[0]!r} came; leave it out or "
            "choose another sampler."
        )
    multistep_samplers.require_order(options.get("order", 1))
    return sampler
