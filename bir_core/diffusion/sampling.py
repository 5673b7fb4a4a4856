"""The samplers by name, each with the schedule that the official code gives it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ..errors import BIRError
from . import midpoint_samplers as midpoint
from . import multistep_samplers as multistep
from . import samplers
from .noise import Interval, NoiseSampler
from .schedules import SchedulePlan

# (denoiser, x, sigmas, *, noise_sampler, options, callback) -> latent
SamplerFunction = Callable[..., Tensor]


NEW_NOISE = ("eta", "s_noise")
CHURN = ("s_churn", "s_tmin", "s_tmax", "s_noise")


@dataclass(frozen=True)
class NamedSampler:
    """A sampler function and the levels that it walks down.

    Attributes:
        options: the names of its numbers that can be set; what they do stands at the function.
        draws: whether it takes noise on the way.
        path: from the levels to the intervals that its steps ask for, in their order, if the
            official code and ComfyUI draw its noise from one Brownian path over the levels, see
            `noise.brownian_noise`, and not anew at each step.
    """

    plan: SchedulePlan
    function: SamplerFunction
    options: tuple[str, ...] = ()
    draws: bool = True
    path: Callable[[Tensor], list[Interval]] | None = None

    @property
    def brownian(self) -> bool:
        """Whether its noise comes from one path."""
        return self.path is not None

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
        if self.draws:
            settings["noise_sampler"] = noise_sampler
        return self.function(denoiser, x, sigmas, callback=callback, **settings)


SAMPLERS = {
    "spaced": NamedSampler("spaced", samplers.sample_spaced),
    "ddim": NamedSampler("ddim", samplers.sample_ddim, draws=False),
    "euler": NamedSampler("edm", samplers.sample_euler, CHURN),
    "euler_ancestral": NamedSampler("edm", samplers.sample_euler_ancestral, NEW_NOISE),
    "heun": NamedSampler("edm", samplers.sample_heun, CHURN),
    "dpm_2": NamedSampler("edm", midpoint.sample_dpm_2, CHURN),
    "dpm_2_ancestral": NamedSampler("edm", midpoint.sample_dpm_2_ancestral, NEW_NOISE),
    "lms": NamedSampler("edm", multistep.sample_lms, ("order",), draws=False),
    "dpmpp_m2": NamedSampler("dpm", multistep.sample_dpmpp_m2, draws=False),
    "dpmpp_2s_ancestral": NamedSampler("edm", midpoint.sample_dpmpp_2s_ancestral, NEW_NOISE),
    "dpmpp_sde": NamedSampler(
        "edm", midpoint.sample_dpmpp_sde, NEW_NOISE, path=midpoint.half_intervals
    ),
    "dpmpp_2m": NamedSampler("edm", multistep.sample_dpmpp_2m, draws=False),
    "dpmpp_2m_sde": NamedSampler(
        "edm", multistep.sample_dpmpp_2m_sde, NEW_NOISE, path=multistep.step_intervals
    ),
    "dpmpp_3m_sde": NamedSampler(
        "edm", multistep.sample_dpmpp_3m_sde, NEW_NOISE, path=multistep.step_intervals
    ),
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
    if "order" in options:
        multistep.require_order(options["order"])
    return sampler
