"""Stage 2 of DiffBIR: Stable Diffusion, steered by IRControlNet, brings detail back."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..diffusion.denoisers import (
    Parameterization,
    discrete_denoiser,
    rescaled_cfg_scale,
    with_cfg,
    with_tiles,
)
from ..diffusion.guidance import RestorationGuidance, weight_map, with_guidance
from ..diffusion.noise import Draws
from ..diffusion.samplers import Step, scale_noise, unscale
from ..diffusion.sampling import named_sampler
from ..diffusion.schedules import q_sample, sampling_schedule
from ..exact_vae.tiled import decode_with_gradient
from ..latents import LATENT_FACTOR, LATENT_SCALE
from ..memory import dtype_of
from .compiling import compiled
from .conditioning import augment_condition
from .masks import control_share, weigh
from .settings import DiffBIRSettings


@dataclass(frozen=True, kw_only=True)
class Stage2:
    """The networks of stage 2 and what they were trained for.

    Attributes:
        sd_unet, ir_controlnet, sd_vae: as in `DiffBIR`.
        alphas_cumprod: (1000,) of the base, see `diffusion.schedules.sd_alphas_cumprod`.
        parameterization: what the base predicts.
        compile: as in `DiffBIR`.
    """

    sd_unet: nn.Module
    ir_controlnet: nn.Module
    sd_vae: nn.Module
    alphas_cumprod: Tensor
    parameterization: Parameterization
    compile: str | None = None

    def sample(
        self,
        condition: Tensor,
        image: Tensor,
        context: Tensor,
        uncond: Tensor | None,
        settings: DiffBIRSettings,
        *,
        tile: int,
        tile_batch: int,
        draws: Draws,
        callback: Callable[[int, int], None],
        mask: Tensor | None = None,
    ) -> Tensor:
        """Sample a latent.

        Args:
            condition: (B, 4, h, w), times the latent scale.
            image: (B, 3, 8 h, 8 w) in [0, 1], what it was encoded from.
            context, uncond: (B, 77, 1024), embeddings of the prompts; uncond None where cfg is 1.
            settings: whose `tile` and `tile_batch` are not read, but those given here.
            draws: the noise: for the start, then for noise_aug, then for the steps.
            callback: told (steps done, steps in all).
            mask: (B, 1, h, w), where to keep, restore or invent, see `masks`.

        Returns:
            (B, 4, h, w) float32, times the latent scale.
        """
        sampler = named_sampler(settings.sampler, settings.sampler_options)
        schedule = sampling_schedule(sampler.plan, self.alphas_cumprod, settings.steps)
        x = draws(condition)
        if settings.start == "condition":
            x = q_sample(condition, x, self.alphas_cumprod[-1])
        hint = condition
        if settings.noise_aug:
            hint = augment_condition(hint, self.alphas_cumprod[settings.noise_aug], draws)

        predict: Callable[..., Tensor] = self.predict
        if self.compile is not None:
            predict = compiled(predict, self.compile, condition.device)

        def network(x: Tensor, timestep: float, /, **cond: Tensor) -> Tensor:
            timesteps = torch.full((len(x),), timestep, device=x.device)
            return predict(x, timesteps, strength=settings.strength, **cond)

        if tile:
            overlap = min(settings.overlap, tile // 2)
            network = with_tiles(
                network,
                tile // LATENT_FACTOR,
                overlap // LATENT_FACTOR,
                spatial=("hint", "share"),
                weights=settings.tile_weights,
                tile_batch=tile_batch,
            )
        cfg = settings.cfg
        spatial = {"hint": hint} | ({} if mask is None else {"share": control_share(mask)})
        guided = with_cfg(
            network,
            spatial | {"context": context},
            None if uncond is None else spatial | {"context": uncond},
            (lambda t: rescaled_cfg_scale(cfg, t)) if settings.rescale_cfg else cfg,
        )
        denoiser = discrete_denoiser(guided, schedule, self.parameterization)
        if settings.guidance or mask is not None:
            pull = self._guidance(condition, image, settings, tile, mask)
            denoiser = with_guidance(denoiser, pull, schedule)

        def report(step: Step) -> None:
            callback(step.index + 1, step.steps)

        intervals = None if sampler.path is None else sampler.path(schedule.sigmas)
        with draws.of_sampler(condition, schedule.sigmas, intervals) as noise:
            latent = sampler.run(
                denoiser,
                scale_noise(x, schedule.levels[0][0]),
                schedule.sigmas,
                noise_sampler=noise,
                options=settings.sampler_options,
                callback=report,
            )
        return unscale(latent, schedule.levels[-1][0])

    def predict(
        self,
        x: Tensor,
        timesteps: Tensor,
        /,
        *,
        hint: Tensor,
        context: Tensor,
        strength: float,
        share: Tensor | None = None,
    ) -> Tensor:
        """eps or v from UNet and IRControlNet, in the type of their weights; float32. The control
        has the factor `strength`, and at each place that of `share` (B, 1, h, w)."""
        dtype = dtype_of(self.sd_unet)
        half_x, half_context = x.to(dtype), context.to(dtype)
        control = None
        if strength:
            residuals = self.ir_controlnet(half_x, hint.to(dtype), timesteps, half_context)
            control = residuals if strength == 1 else [each * strength for each in residuals]
            if share is not None:
                control = [weigh(residual, share) for residual in control]
        output: Tensor = self.sd_unet(half_x, timesteps, half_context, control)
        return output.float()

    def _guidance(
        self,
        condition: Tensor,
        image: Tensor,
        settings: DiffBIRSettings,
        tile: int,
        mask: Tensor | None = None,
    ) -> RestorationGuidance:
        in_pixels = settings.guidance_space == "rgb"
        space, loss = settings.guidance_space, settings.guidance_loss
        weight = weight_map(image, space, loss) if loss == "w_mse" else None

        def decode(latent: Tensor) -> Tensor:
            x = (latent / LATENT_SCALE).to(dtype_of(self.sd_vae))
            if tile and tile < max(image.shape[-2:]):
                return decode_with_gradient(self.sd_vae, x, tile=tile).float()
            pixels: Tensor = self.sd_vae.decode(x)  # type: ignore[operator]
            return pixels.float()

        return RestorationGuidance(
            latent=condition,
            scale=settings.guidance,
            at_any_size=settings.guidance_per == "512x512",
            weight=weight,
            image=2 * image - 1 if in_pixels else None,
            decode=decode if in_pixels else None,
            start=settings.guidance_start,
            stop=settings.guidance_stop,
            repeats=settings.guidance_repeats,
            mask=mask,
        )
