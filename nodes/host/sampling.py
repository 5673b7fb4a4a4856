"""What samplers need of a MODEL: its noise levels, and a guider.

Like `services.py` it uses parts of ComfyUI without a promise of stability.
"""

from typing import Any

import comfy.model_sampling
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from torch import Tensor

from ...bir_core.diffusion.denoisers import rescaled_cfg_scale
from ...bir_core.diffusion.noise import draw_normal, image_generators
from ...bir_core.diffusion.schedules import TRAINED_STEPS
from ...bir_core.errors import BIRError
from ...bir_core.fallbacks import enough_memory
from ...bir_core.seeds import image_seed
from .protocols import Conditioning, Guider, Model


def trained_sigmas(model: Model) -> Tensor:
    """(1000,) ascending, sigma of each trained timestep of a MODEL as it is patched.

    Raises:
        BIRError: a model that was not trained on 1000 timesteps.
    """
    sampling = model.get_model_object("model_sampling")
    discrete = isinstance(sampling, comfy.model_sampling.ModelSamplingDiscrete)
    steps = len(sampling.sigmas) if discrete else None
    if steps != TRAINED_STEPS:
        raise BIRError(
            f"The spaced schedule should have a model with {TRAINED_STEPS} trained timesteps, but "
            f"this one has {steps if discrete else 'a continuous time'}; use Stable "
            "Diffusion 2.1 base or DiffBIR's zero-SNR base, with ModelSamplingDiscrete if needed."
        )
    return sampling.sigmas.cpu()


class GrowingCFGGuider(comfy.samplers.CFGGuider):
    """Classifier-free guidance whose scale follows the timestep.

    Attributes:
        scale: what the user set.
        rescale: whether it grows from 1 to 1 + scale (DiffBIR's rescale_cfg) or is constant.
    """

    def __init__(self, model: Model, scale: float, rescale: bool) -> None:
        super().__init__(model)
        self.scale, self.rescale = scale, rescale
        self.set_cfg(scale)

    def predict_noise(
        self,
        x: Tensor,
        timestep: Tensor,
        model_options: dict[str, Any] | None = None,
        seed: int | None = None,
    ) -> Tensor:
        if self.rescale:
            t = float(self.inner_model.model_sampling.timestep(timestep).flatten()[0])
            self.set_cfg(rescaled_cfg_scale(self.scale, t))
        denoised: Tensor = super().predict_noise(x, timestep, model_options or {}, seed)
        return denoised


def computing_type(model: Model) -> torch.dtype:
    """What a MODEL computes in, which need not be the type of its weights."""
    return model.get_model_object("manual_cast_dtype") or model.model.get_dtype()


def in_float32(model: Model) -> Model:
    """A MODEL like `model` that computes in float32, its weights cast layer by layer."""
    wide = model.clone()
    wide.set_model_compute_dtype(torch.float32)
    return wide


def growing_cfg_guider(
    model: Model, positive: Conditioning, negative: Conditioning, scale: float, rescale: bool
) -> GrowingCFGGuider:
    guider = GrowingCFGGuider(model, scale, rescale)
    guider.set_conds(positive, negative)
    return guider


def sampler_names() -> list[str]:
    names: list[str] = comfy.samplers.SAMPLER_NAMES
    return names


def scheduler_names() -> list[str]:
    names: list[str] = comfy.samplers.SCHEDULER_NAMES
    return names


def stock_sigmas(model: Model, sampler: str, scheduler: str, steps: int) -> Tensor:
    """(steps + 1,) descending: what KSampler walks down with one of ComfyUI's own schedulers. Some
    samplers leave a level out."""
    stock = comfy.samplers.KSampler(
        model, steps=steps, device=model.load_device, sampler=sampler, scheduler=scheduler
    )
    sigmas: Tensor = stock.sigmas.cpu()
    return sigmas


class CountedSeed(int):
    """A seed that is counted on modulo 2^64, as `bir_core.seeds` does: on a CPU some of ComfyUI's
    samplers take the one after it, which the last seed does not have."""

    def __add__(self, other: int) -> int:
        return image_seed(int(self), other)


def sample(guider: Guider, latent: Tensor, sampler: str, sigmas: Tensor, seed: int) -> Tensor:
    """Sample latents (B, 4, h, w), unscaled, from noise on top of `latent`, with a preview and
    progress for each step. Image i of the batch draws its first noise from seed + i.

    Raises:
        BIRError: no memory.
    """
    with enough_memory(
        "Sampling should find memory for the picture, but it ran out; choose a tile size of 512 "
        "pixels or less, or take a smaller picture."
    ):
        samples = guider.sample(
            draw_normal(image_generators(seed, len(latent)), latent),
            latent,
            comfy.samplers.sampler_object(sampler),
            sigmas,
            callback=latent_preview.prepare_callback(guider.model_patcher, len(sigmas) - 1),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=CountedSeed(seed),
        )
        return samples.to(latent.device)
