"""DiffBIR outside ComfyUI: stage 1 removes the degradation, stage 2 brings detail back.

Lin et al., "DiffBIR: Toward Blind Image Restoration with Generative Diffusion Prior" (ECCV 2024).
The networks come as modules and the prompts as embeddings; every step is a method, and a call makes
them all.
"""

import logging
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from .conditioning import PADDED_MULTIPLE
from .diffbir_settings import COLOR_FIXES, DiffBIRSettings, official_settings
from .diffusion.denoisers import discrete_denoiser, rescaled_cfg_scale, with_cfg, with_tiles
from .diffusion.guidance import (
    LATENT_FACTOR,
    RestorationGuidance,
    weight_map,
    with_guidance,
)
from .diffusion.noise import Draws, NoiseSource, require_brownian_noise
from .diffusion.samplers import Step, scale_noise, unscale
from .diffusion.sampling import SAMPLERS, named_sampler
from .diffusion.schedules import q_sample, sampling_schedule, sd_alphas_cumprod
from .errors import BIRError
from .exact_tiled_vae import decode_tiled, encode_tiled
from .images import crop, pad_to_multiple, require_finite, resize
from .memory import is_out_of_memory
from .stage1 import (
    Stage1Sizes,
    Task,
    Version,
    official_order,
    restore_stage1,
    stage1_sizes,
)

LATENT_SCALE = 0.18215
SMALLEST_TILE = 64

# (name of the stage, steps done, steps in all); may raise to cancel
Callback = Callable[[str, int, int], None]
logger = logging.getLogger(__name__)


class DiffBIR:
    """The two stages with their networks.

    The work is done where `sd_unet` lies; the other networks belong on the same device. UNet and
    IRControlNet may be of half precision, the arithmetic of the samplers is float32. A stage that
    gives NaN or infinity in half precision is repeated in float32.

    Args:
        sd_unet: (x, timesteps, context, control) -> eps, or v for v2.1, as `SDUNet`.
        ir_controlnet: (x, hint, timesteps, context) -> list of residuals, as `IRControlNet`.
        sd_vae: as `SDVAE`.
        stage1: restores (B, 3, h, w) to (B, 3, h stage1_scale, w stage1_scale), both in [0, 1];
            None takes the picture as it is, for input that another program has cleaned.
        stage1_scale: enlargement by `stage1`.
        version: v1 and v2 want the base of SD 2.1 (eps, plain schedule), v2.1 the zero-SNR base.

    Raises:
        BIRError: an unknown version, or an IRControlNet with other sizes than the UNet.
    """

    def __init__(
        self,
        *,
        sd_unet: nn.Module,
        ir_controlnet: nn.Module,
        sd_vae: nn.Module,
        stage1: Callable[[Tensor], Tensor] | None = None,
        stage1_scale: int = 1,
        version: Version = "v2.1",
    ) -> None:
        if version not in ("v1", "v2", "v2.1"):
            raise BIRError(
                f"Expected DiffBIR v1, v2 or v2.1, but {version!r} came; choose one of these."
            )
        configs = [getattr(network, "config", None) for network in (sd_unet, ir_controlnet)]
        if None not in configs and configs[0] != configs[1]:
            raise BIRError(
                f"IRControlNet should have the sizes of the base, {configs[0]}, but {configs[1]} "
                "came; choose files that belong together."
            )
        self.sd_unet, self.ir_controlnet, self.sd_vae = sd_unet, ir_controlnet, sd_vae
        self.stage1, self.stage1_scale, self.version = stage1, stage1_scale, version
        self.alphas_cumprod = sd_alphas_cumprod(zero_snr=version == "v2.1")

    @property
    def device(self) -> torch.device:
        """Where the work is done."""
        return next(self.sd_unet.parameters()).device

    @torch.no_grad()
    def __call__(
        self,
        image: Tensor,
        prompt: Tensor,
        negative: Tensor | None = None,
        *,
        task: Task = "sr",
        upscale_by: float = 4.0,
        settings: DiffBIRSettings | None = None,
        seed: int = 0,
        noise: NoiseSource | None = None,
        callback: Callback | None = None,
    ) -> Tensor:
        """Restore pictures.

        Args:
            image: (B, 3, H, W) in [0, 1], any size.
            prompt, negative: embeddings (1 or B, 77, 1024), as from `prompts`; negative may be None
                where cfg is 1.
            task: sr, denoise or face (aligned, 512 x 512); it decides the order of stage 1.
            upscale_by: output side divided by input side.
            settings: None for the official ones of the version.
            seed: image i draws its noise on the CPU from seed + i, whatever else is in the batch;
                the SDE samplers draw that of their steps from a Brownian path of this seed.
            noise: instead of the seed: called with a latent for each draw, first for the start,
                then for noise_aug where it is set, then by the sampler.
            callback: told the stage and its progress.

        Returns:
            (B, 3, int(H upscale_by), int(W upscale_by)) float32 in [0, 1], on the image's device.

        Raises:
            BIRError: wrong shapes or settings, no memory, numbers that are not finite, or an SDE
                sampler without the package torchsde.
        """
        if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
            raise BIRError(
                "The image should be a tensor (B, 3, H, W) of floating-point numbers in [0, 1], "
                f"but {tuple(image.shape)} of {image.dtype} came; convert it first."
            )
        require_finite(image, "The image")
        settings = settings or official_settings(self.version)
        if noise is None and SAMPLERS[settings.sampler].brownian:
            require_brownian_noise()
        tell = callback or (lambda stage, done, total: None)
        order = official_order(task, self.version)
        height, width = image.shape[-2:]
        sizes = stage1_sizes(height, width, order, upscale_by, settings.short_side)
        condition = self.remove_degradation(
            image.to(self.device, torch.float32), task, sizes, settings, callback=tell
        )
        padded = pad_to_multiple(condition, PADDED_MULTIPLE, settings.padding)
        latent = self.encode(padded, settings.vae_tile, callback=tell)
        sampled = self.sample(
            latent,
            padded,
            prompt,
            negative,
            settings,
            seed=seed,
            noise=noise,
            callback=tell,
        )
        decoded = self.decode(sampled, settings.vae_tile, callback=tell)
        restored = crop(decoded, *sizes.condition)
        if settings.color_fix != "none":
            restored = COLOR_FIXES[settings.color_fix](restored, condition)
        if tuple(restored.shape[-2:]) != sizes.output:
            restored = resize(restored, *sizes.output)
        return restored.clamp(0, 1).to(image.device).contiguous()

    def remove_degradation(
        self,
        image: Tensor,
        task: Task,
        sizes: Stage1Sizes,
        settings: DiffBIRSettings,
        *,
        callback: Callback,
    ) -> Tensor:
        """Stage 1: (B, 3, H, W) in [0, 1] to (B, 3, *sizes.condition), not clamped."""
        order = official_order(task, self.version)
        network, scale = self.stage1, self.stage1_scale
        if network is None:
            # There is nothing to run at another size than that of the result.
            network, scale, order = (lambda x: x), 1, "enlarge_first"
            sizes = Stage1Sizes(sizes.condition, sizes.condition, sizes.output)
        return restore_stage1(
            image,
            network,
            order,
            sizes,
            scale=scale,
            tile=settings.stage1_tile,
            overlap=settings.stage1_overlap,
            padding=settings.padding,
            callback=lambda done, total: callback("stage 1", done, total),
        ).float()

    def encode(self, image: Tensor, tile: int, *, callback: Callback) -> Tensor:
        """The condition latent: mode of the VAE for (B, 3, H, W) in [0, 1], sides dividing by 64;
        (B, 4, H / 8, W / 8) float32 times the latent scale."""

        def run() -> Tensor:
            x = (2 * image - 1).to(_dtype(self.sd_vae))
            if not tile:
                return self.sd_vae.encode(x).float()  # type: ignore[operator]
            report = _reporter(callback, "encoding")
            return encode_tiled(self.sd_vae, x, tile=tile, callback=report).float()

        return LATENT_SCALE * _finite("The condition latent", run, [self.sd_vae])

    def decode(self, latent: Tensor, tile: int, *, callback: Callback) -> Tensor:
        """A latent times the latent scale, (B, 4, h, w), to pictures (B, 3, 8 h, 8 w), float32,
        not clamped to [0, 1]."""

        def run() -> Tensor:
            x = (latent / LATENT_SCALE).to(_dtype(self.sd_vae))
            if not tile:
                return self.sd_vae.decode(x).float()  # type: ignore[operator]
            report = _reporter(callback, "decoding")
            return decode_tiled(self.sd_vae, x, tile=tile, callback=report).float()

        return (_finite("The decoded picture", run, [self.sd_vae]) + 1) / 2

    def sample(
        self,
        condition: Tensor,
        image: Tensor,
        prompt: Tensor,
        negative: Tensor | None,
        settings: DiffBIRSettings,
        *,
        seed: int = 0,
        noise: NoiseSource | None = None,
        callback: Callback,
    ) -> Tensor:
        """Stage 2 in latent space.

        Args:
            condition: (B, 4, h, w), of `encode`.
            image: (B, 3, 8 h, 8 w), what it was encoded from; the guidance pulls towards it.
            prompt, negative, settings, seed, noise, callback: as in a call.

        Returns:
            (B, 4, h, w) float32, times the latent scale.
        """
        context = _context(prompt, condition)
        uncond = None if negative is None else _context(negative, condition)
        if uncond is None and (settings.cfg != 1 or settings.rescale_cfg):
            raise BIRError(
                f"A cfg of {settings.cfg:g} should have a negative prompt, but none came; give the "
                "embedding of the empty prompt, or set cfg to 1."
            )
        draws = Draws(seed, len(condition), noise)
        tile = settings.tile

        def run() -> Tensor:
            nonlocal tile
            while True:
                draws.rewind()
                try:
                    return self._sample(
                        condition, image, context, uncond, settings, tile, draws, callback
                    )
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    side = tile or max(image.shape[-2:])
                    if side <= SMALLEST_TILE:
                        raise BIRError(
                            f"The sampling should have memory for a tile of {SMALLEST_TILE} "
                            "pixels, but even that did not fit; close other programs or use half "
                            "precision."
                        ) from error
                # Outside of the except block, which would keep the tensors of the failure alive.
                tile = max(SMALLEST_TILE, side // 2 // SMALLEST_TILE * SMALLEST_TILE)
                logger.warning("Out of memory: sampling again with tiles of %d pixels", tile)

        return _finite("The sampled latent", run, [self.sd_unet, self.ir_controlnet])

    def _network(
        self, x: Tensor, timesteps: Tensor, /, *, hint: Tensor, context: Tensor, strength: float
    ) -> Tensor:
        """eps or v from UNet and IRControlNet, in the type of their weights."""
        dtype = _dtype(self.sd_unet)
        half_x, half_context = x.to(dtype), context.to(dtype)
        control = None
        if strength:
            residuals = self.ir_controlnet(half_x, hint.to(dtype), timesteps, half_context)
            control = [residual * strength for residual in residuals]
        output: Tensor = self.sd_unet(half_x, timesteps, half_context, control)
        return output.float()

    def _sample(
        self,
        condition: Tensor,
        image: Tensor,
        context: Tensor,
        uncond: Tensor | None,
        settings: DiffBIRSettings,
        tile: int,
        draws: Draws,
        callback: Callback,
    ) -> Tensor:
        sampler = named_sampler(settings.sampler, settings.sampler_options)
        schedule = sampling_schedule(sampler.plan, self.alphas_cumprod, settings.steps)
        x = draws(condition)
        if settings.start == "condition":
            x = q_sample(condition, x, self.alphas_cumprod[-1])
        hint = condition
        if settings.noise_aug:
            hint = q_sample(hint, draws(hint), self.alphas_cumprod[settings.noise_aug])

        def network(x: Tensor, timesteps: Tensor, /, **cond: Tensor) -> Tensor:
            return self._network(x, timesteps, strength=settings.strength, **cond)

        if tile:
            overlap = min(settings.overlap, tile // 2)
            network = with_tiles(
                network,
                tile // LATENT_FACTOR,
                overlap // LATENT_FACTOR,
                weights=settings.tile_weights,
                tile_batch=settings.tile_batch,
            )
        cfg = settings.cfg
        guided = with_cfg(
            network,
            {"hint": hint, "context": context},
            None if uncond is None else {"hint": hint, "context": uncond},
            (lambda t: rescaled_cfg_scale(cfg, t)) if settings.rescale_cfg else cfg,
        )
        parameterization: Literal["eps", "v"] = "v" if self.version == "v2.1" else "eps"
        denoiser = discrete_denoiser(guided, schedule, parameterization)
        if settings.guidance:
            pull = self._guidance(condition, image, settings)
            denoiser = with_guidance(denoiser, pull, schedule)

        def report(step: Step) -> None:
            callback("sampling", step.index + 1, step.steps)

        latent = sampler.run(
            denoiser,
            scale_noise(x, schedule.sigmas[0]),
            schedule.sigmas,
            noise_sampler=draws.of_sampler(condition, schedule.sigmas, sampler.brownian),
            options=settings.sampler_options,
            callback=report,
        )
        return unscale(latent, schedule.sigmas[-1])

    def _guidance(
        self, condition: Tensor, image: Tensor, settings: DiffBIRSettings
    ) -> RestorationGuidance:
        in_pixels = settings.guidance_space == "rgb"
        space, loss = settings.guidance_space, settings.guidance_loss
        weight = weight_map(image, space, loss) if loss == "w_mse" else None

        def decode(latent: Tensor) -> Tensor:
            pixels = self.sd_vae.decode(  # type: ignore[operator]
                (latent / LATENT_SCALE).to(_dtype(self.sd_vae))
            )
            return pixels.float()

        return RestorationGuidance(
            latent=condition,
            scale=settings.guidance,
            weight=weight,
            image=2 * image - 1 if in_pixels else None,
            decode=decode if in_pixels else None,
            start=settings.guidance_start,
            stop=settings.guidance_stop,
            repeats=settings.guidance_repeats,
        )


def _dtype(network: nn.Module) -> torch.dtype:
    return next(network.parameters()).dtype


def _reporter(callback: Callback, stage: str) -> Callable[[int, int], None]:
    return lambda done, total: callback(stage, done, total)


def _context(embedding: Tensor, latent: Tensor) -> Tensor:
    """One embedding for each image, where the latent lies."""
    if embedding.ndim != 3 or embedding.shape[0] not in (1, len(latent)):
        raise BIRError(
            f"The embedding of a prompt should have the shape (1 or {len(latent)}, 77, 1024), but "
            f"{tuple(embedding.shape)} came; give one for all images, or one for each."
        )
    return embedding.to(latent).expand(len(latent), -1, -1)


def _finite(name: str, run: Callable[[], Tensor], networks: list[nn.Module]) -> Tensor:
    """What a stage gives, repeated in float32 if half precision overflows in it."""
    result = run()
    dtypes = [_dtype(network) for network in networks]
    if not bool(torch.isfinite(result).all()) and set(dtypes) != {torch.float32}:
        logger.warning("%s is not finite in %s: repeating in float32", name, dtypes[0])
        try:
            for network in networks:
                network.float()
            result = run()
        finally:
            # Widening loses nothing, so these are the weights from before.
            for network, dtype in zip(networks, dtypes, strict=True):
                network.to(dtype)
    require_finite(result, name)
    return result
