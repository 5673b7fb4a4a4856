"""What samplers need of a MODEL: its noise levels, and a guider.

Like `host.py` it uses parts of ComfyUI without a promise of stability.
"""

from typing import Any

import comfy.model_sampling
import comfy.samplers
from torch import Tensor

from ..bir_core.diffusion.denoisers import rescaled_cfg_scale
from ..bir_core.diffusion.schedules import TRAINED_STEPS
from ..bir_core.errors import BIRError


def trained_sigmas(model: Any) -> Tensor:
    """(1000,) ascending, sigma of each trained timestep of a MODEL as it is patched.

    Raises:
        BIRError: a model that was not trained on 1000 timesteps.
    """
    sampling = model.get_model_object("model_sampling")
    sigmas = getattr(sampling, "sigmas", ())
    discrete = isinstance(sampling, comfy.model_sampling.ModelSamplingDiscrete)
    if not discrete or len(sigmas) != TRAINED_STEPS:
        raise BIRError(
            f"The spaced schedule should have a model with {TRAINED_STEPS} trained timesteps, but "
            f"this one has {len(sigmas) if discrete else 'a continuous time'}; use Stable "
            "Diffusion 2.1 base or DiffBIR's zero-SNR base, with ModelSamplingDiscrete if needed."
        )
    table: Tensor = sigmas.cpu()
    return table


class GrowingCFGGuider(comfy.samplers.CFGGuider):
    """Classifier-free guidance whose scale follows the timestep.

    Attributes:
        scale: what the user set.
        rescale: whether it grows from 1 to 1 + scale (DiffBIR's rescale_cfg) or is constant.
    """

    def __init__(self, model: Any, scale: float, rescale: bool) -> None:
        super().__init__(model)
        self.scale, self.rescale = scale, rescale
        self.set_cfg(scale)

    def predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: Any = None, seed: int | None = None
    ) -> Tensor:
        if self.rescale:
            t = float(self.inner_model.model_sampling.timestep(timestep).flatten()[0])
            self.set_cfg(rescaled_cfg_scale(self.scale, t))
        denoised: Tensor = super().predict_noise(x, timestep, model_options or {}, seed)
        return denoised


def growing_cfg_guider(
    model: Any, positive: Any, negative: Any, scale: float, rescale: bool
) -> GrowingCFGGuider:
    guider = GrowingCFGGuider(model, scale, rescale)
    guider.set_conds(positive, negative)
    return guider
