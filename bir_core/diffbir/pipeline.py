"""DiffBIR outside ComfyUI: stage 1 removes the degradation, stage 2 brings detail back.

Lin et al., "DiffBIR: Toward Blind Image Restoration with Generative Diffusion Prior" (ECCV 2024).
The networks come as modules and the prompts as embeddings; every step is a method, and a call makes
them all.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from ..checkpoints.origin import Origin
from ..diffusion.noise import Draws, NoiseSource, require_brownian_noise
from ..diffusion.sampling import SAMPLERS
from ..diffusion.schedules import sd_alphas_cumprod
from ..errors import BIRError
from ..exact_vae.tiled import decode_tiled, encode_tiled
from ..fallbacks import enough_memory, finite, in_fitting_tiles, whole_or_in_tiles
from ..images import crop, masks_of_batch, pad_to_multiple, require_image, resize
from ..latents import LATENT_SCALE, PADDED_MULTIPLE
from ..memory import CPU, MemoryPlan, dtype_of, free_memory, visiting, weight_bytes
from ..seeds import image_seeds
from ..tiling import Tile
from .color_fix import COLOR_FIXES, fix_colors
from .masks import latent_mask, picture_mask
from .memory_plan import TILES, plan_diffbir
from .networks import DiffBIRNetworks
from .piece import Piece, guidance_of_piece, in_latents, resized_tile, seen, whole_of
from .prompts import require_prompts, rows_of
from .restoration_modules import RestorationModule, as_restoration_module
from .runs import Run, require_room_for
from .settings import DiffBIRSettings, official_settings, settled
from .stage1 import Stage1Sizes, restore_stage1, stage1_sizes
from .stage2 import Stage2
from .versions import Task, find_version, official_order
from .which_version import ask_unet, version_of

# (name of the stage, steps done, steps in all); may raise to cancel
Callback = Callable[[str, int, int], None]
logger = logging.getLogger(__name__)


class DiffBIR:
    """The two stages with their networks.

    The networks belong on one device, and are brought to it if it is named. UNet and IRControlNet
    may be of half precision, the arithmetic of the samplers is float32. A stage that gives NaN or
    infinity in half precision is repeated in float32.

    Args:
        sd_unet: (x, timesteps, context, control) -> eps, or v for v2.1, as `SDUNet`.
        ir_controlnet: (x, hint, timesteps, context) -> list of residuals, as `IRControlNet`.
        sd_vae: as `SDVAE`.
        stage1: as from `load_restoration_module`, or a function that restores (B, 3, h, w) to
            (B, 3, h stage1_scale, w stage1_scale), both in [0, 1]; None takes the picture as it is,
            for input that another program has cleaned.
        stage1_scale: enlargement by `stage1` if that is a function; None takes it from the model,
            where it has a `config` or `info` with a `scale`, or else 1.
        version: v1 and v2 want the base of SD 2.1 (eps, plain schedule), v2.1 the zero-SNR base;
            None for the one that file and base say, see `which_version`. A given one is not
            doubted.
        device: where the work is done; None for where `sd_unet` lies, and the others with it.
        offload: only the networks of the stage at work lie on the device, the others wait in the
            host's memory.

    Raises:
        BIRError: an unknown version, one that files and base do not say or contradict each other
            in, or an IRControlNet with other sizes than the UNet.
    """

    def __init__(
        self,
        *,
        sd_unet: nn.Module,
        ir_controlnet: nn.Module,
        sd_vae: nn.Module,
        stage1: RestorationModule | Callable[[Tensor], Tensor] | None = None,
        stage1_scale: int | None = None,
        version: str | None = None,
        device: torch.device | str | None = None,
        offload: bool = False,
    ) -> None:
        configs = [getattr(network, "config", None) for network in (sd_unet, ir_controlnet)]
        if None not in configs and configs[0] != configs[1]:
            raise BIRError(
                f"IRControlNet should have the sizes of the base, {configs[0]}, but {configs[1]} "
                "came; choose files that belong together."
            )
        self.networks = DiffBIRNetworks(
            sd_unet=sd_unet,
            ir_controlnet=ir_controlnet,
            sd_vae=sd_vae,
            stage1=None if stage1 is None else as_restoration_module(stage1, stage1_scale),
        )
        self.device = torch.device(device or next(sd_unet.parameters()).device)
        self.offload = offload
        if offload or device is not None:
            for each in self.networks.modules:
                each.to(CPU if offload else self.device)
        if version is None:
            with self._present(sd_unet):
                predicts = ask_unet(sd_unet, self.device).predicts
            version = version_of(getattr(ir_controlnet, "origin", Origin()), predicts)
        self.version = version
        self.alphas_cumprod = sd_alphas_cumprod(zero_snr=find_version(version).zero_snr)

    def with_stage1(
        self, stage1: RestorationModule | Callable[[Tensor], Tensor] | None
    ) -> "DiffBIR":
        """The same with another stage 1; the other networks are shared."""
        networks = self.networks
        return type(self)(
            sd_unet=networks.sd_unet,
            ir_controlnet=networks.ir_controlnet,
            sd_vae=networks.sd_vae,
            stage1=stage1,
            version=self.version,
            device=self.device,
            offload=self.offload,
        )

    def _present(self, *networks: nn.Module | None) -> AbstractContextManager[None]:
        """Networks on the device for as long as a stage works."""
        return visiting(self.device, *networks) if self.offload else nullcontext()

    def plan(
        self,
        height: int,
        width: int,
        *,
        task: Task = "sr",
        upscale_by: float = 4.0,
        settings: DiffBIRSettings | None = None,
        images: int = 1,
        memory: int | None = None,
        host_memory: int | None = None,
    ) -> MemoryPlan:
        """What a call with these arguments takes of the memory, and in which pieces; arguments and
        errors as in `decide`."""
        return self.decide(
            height,
            width,
            task=task,
            upscale_by=upscale_by,
            settings=settings,
            images=images,
            memory=memory,
            host_memory=host_memory,
        ).plan

    def decide(
        self,
        height: int,
        width: int,
        *,
        task: Task = "sr",
        upscale_by: float = 4.0,
        settings: DiffBIRSettings | None = None,
        images: int = 1,
        memory: int | None = None,
        host_memory: int | None = None,
    ) -> Run:
        """How a call with these arguments goes.

        Args:
            height, width: of the pictures that come in.
            task, upscale_by, settings: as in a call.
            images: in the batch.
            memory, host_memory: bytes of device and host to plan for; None takes what is free now.

        Raises:
            BIRError: as for impossible sizes in a call.
        """
        settings = settings or official_settings(self.version)
        order = official_order(task, self.version)
        sizes = stage1_sizes(height, width, order, upscale_by, settings.short_side)
        networks = self.networks
        if memory is None:
            lying = weight_bytes(*networks.modules, on=self.device)
            memory = free_memory(self.device) + lying
        plan = plan_diffbir(
            networks,
            sizes,
            order,
            settings,
            device=self.device,
            memory=memory,
            host_memory=free_memory(CPU) if host_memory is None else host_memory,
            images=images,
            offload=self.offload,
        )
        return Run(order=order, sizes=sizes, settings=settled(settings, plan), plan=plan)

    @enough_memory()
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
        shared_noise: bool = False,
        noise: NoiseSource | None = None,
        callback: Callback | None = None,
        mask: Tensor | None = None,
        piece: Piece | None = None,
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
            shared_noise: every image draws from `seed` itself, so that equal frames of a film come
                out equal.
            noise: instead of the seed: called with a latent for each draw, first for the start,
                then for noise_aug where it is set, then by the sampler.
            callback: told the stage and its progress.
            mask: (B or 1, 1, H, W) in [0, 1], or of another size in these proportions: 1 keeps the
                stage-1 picture, 0.5 restores as without a mask, 0 invents; see `masks`.
            piece: to restore no more than that, with the noise and the stage 1 of the whole.

        Returns:
            (B, 3, int(H upscale_by), int(W upscale_by)) float32 in [0, 1], on the image's device,
            or the piece of it; grey where the image is.

        Raises:
            BIRError: wrong shapes or settings, no memory, numbers that are not finite, or an SDE
                sampler without the package torchsde.
        """
        require_image(image)
        settings = settings or official_settings(self.version)
        require_prompts(prompt, negative, len(image), settings)
        if noise is None and SAMPLERS[settings.sampler].brownian:
            require_brownian_noise()
        tell = callback or (lambda stage, done, total: None)
        run = self.decide(
            *image.shape[-2:],
            task=task,
            upscale_by=upscale_by,
            settings=settings,
            images=len(image),
        )
        if mask is not None:
            mask = picture_mask(masks_of_batch(mask, len(image)), *run.sizes.condition)
        require_room_for(run, image, upscale_by, self.networks.sd_vae, self.device)
        logger.info("Memory plan: %s", run.plan)
        if not run.plan.fits:
            logger.warning("%s may not have the memory: %s", self.device, run.plan)
        condition = run.sizes.condition
        whole = whole_of(*condition)
        tile = whole if piece is None else piece.tile(*condition)
        # A source of noise knows nothing of parts of the batch.
        together = run.plan.images if noise is None else len(image)
        parts, seeds = [], image_seeds(seed, len(image), shared_noise)
        for start in range(0, len(image), together):
            part, own = image[start : start + together], rows_of(prompt, start, together)
            against = None if negative is None else rows_of(negative, start, together)
            places = None if mask is None else mask[start : start + together].to(self.device)
            draws = Draws(
                seeds[start : start + together],
                noise,
                place=None if piece is None else (in_latents(tile), in_latents(whole)[2:]),
            )
            parts.append(self._restore(run, part, own, against, draws, tell, places, tile))
        return torch.cat(parts)

    def _restore(
        self,
        run: Run,
        image: Tensor,
        prompt: Tensor,
        negative: Tensor | None,
        draws: Draws,
        tell: Callback,
        mask: Tensor | None,
        tile: Tile,
    ) -> Tensor:
        """A call on pictures that are restored at a time, or on a tile of them with its padding."""
        settings, sizes = run.settings, run.sizes
        condition = self.remove_degradation(
            image.to(self.device, torch.float32), run, callback=tell
        )
        padded = tile.crop(pad_to_multiple(condition, PADDED_MULTIPLE, settings.padding))
        latent = self.encode(padded, settings.vae_tile, callback=tell)
        places = None
        if mask is not None:
            places = in_latents(tile).crop(latent_mask(mask, *sizes.condition))
        if settings.guidance_per == "picture":
            whole = whole_of(*sizes.condition)
            settings = replace(settings, guidance=guidance_of_piece(settings.guidance, tile, whole))
        sampled = self.sample(
            latent, padded, prompt, negative, settings, draws=draws, callback=tell, mask=places
        )
        del padded, latent
        decoded = self.decode(sampled, settings.vae_tile, callback=tell)
        shown = seen(tile, *sizes.condition)
        restored, condition = crop(decoded, *shown[2:]), shown.crop(condition)
        mask = None if mask is None else shown.crop(mask)
        fix = COLOR_FIXES.get(settings.color_fix)
        restored = fix_colors(restored, condition, fix, settings.blending, mask)
        output = resized_tile(shown, sizes.condition, sizes.output)[2:]
        if tuple(restored.shape[-2:]) != output:
            restored = resize(restored, *output)
        return restored.clamp(0, 1).to(image.device).contiguous()

    def remove_degradation(self, image: Tensor, run: Run, *, callback: Callback) -> Tensor:
        """Stage 1: (B, 3, H, W) in [0, 1] to (B, 3, *run.sizes.condition), not clamped."""
        order, sizes, settings = run.order, run.sizes, run.settings
        module = self.networks.stage1
        if module is None:
            # There is nothing to run at another size than that of the result.
            module, order = RestorationModule(lambda x: x, 1, "none"), "enlarge_first"
            sizes = Stage1Sizes(sizes.condition, sizes.condition, sizes.output)
        with self._present(module.network):
            return restore_stage1(
                image,
                module.restore,
                order,
                sizes,
                scale=module.scale,
                tile=settings.stage1_tile or 0,
                overlap=settings.stage1_overlap,
                padding=settings.padding,
                callback=partial(callback, "stage 1"),
            ).float()

    def encode(self, image: Tensor, tile: int | None = None, *, callback: Callback) -> Tensor:
        """The condition latent: mode of the VAE for (B, 3, H, W) in [0, 1], sides dividing by 64;
        (B, 4, H / 8, W / 8) float32 times the latent scale."""
        vae, first = self.networks.sd_vae, TILES[0] if tile is None else tile

        def run() -> Tensor:
            x = (2 * image - 1).to(dtype_of(vae))
            report = partial(callback, "encoding")
            return whole_or_in_tiles(
                first,
                lambda: vae.encode(x),  # type: ignore[operator]
                lambda side: encode_tiled(vae, x, tile=side, callback=report),
                TILES[0],
            ).float()

        with self._present(vae):
            return LATENT_SCALE * finite("The condition latent", run, [vae])

    def decode(self, latent: Tensor, tile: int | None = None, *, callback: Callback) -> Tensor:
        """A latent times the latent scale, (B, 4, h, w), to pictures (B, 3, 8 h, 8 w), float32,
        not clamped to [0, 1]."""
        vae, first = self.networks.sd_vae, TILES[0] if tile is None else tile

        def run() -> Tensor:
            x = (latent / LATENT_SCALE).to(dtype_of(vae))
            report = partial(callback, "decoding")
            return whole_or_in_tiles(
                first,
                lambda: vae.decode(x),  # type: ignore[operator]
                lambda side: decode_tiled(vae, x, tile=side, callback=report),
                TILES[0],
            ).float()

        with self._present(vae):
            return (finite("The decoded picture", run, [vae]) + 1) / 2

    def sample(
        self,
        condition: Tensor,
        image: Tensor,
        prompt: Tensor,
        negative: Tensor | None,
        settings: DiffBIRSettings,
        *,
        draws: Draws,
        callback: Callback,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Stage 2 in latent space.

        Args:
            condition: (B, 4, h, w), of `encode`.
            image: (B, 3, 8 h, 8 w), what it was encoded from; the guidance pulls towards it.
            prompt, negative, settings, callback: as in a call.
            draws: the noise.
            mask: (B, 1, h, w), see `masks.latent_mask`.

        Returns:
            (B, 4, h, w) float32, times the latent scale.
        """
        batch = len(condition)
        context = prompt.to(condition).expand(batch, -1, -1)
        uncond = None if negative is None else negative.to(condition).expand(batch, -1, -1)
        networks = self.networks
        stage2 = Stage2(
            sd_unet=networks.sd_unet,
            ir_controlnet=networks.ir_controlnet,
            sd_vae=networks.sd_vae,
            alphas_cumprod=self.alphas_cumprod,
            parameterization=find_version(self.version).parameterization,
        )

        def sample(tile: int, tile_batch: int) -> Tensor:
            draws.rewind()
            return stage2.sample(
                condition,
                image,
                context,
                uncond,
                settings,
                tile=tile,
                tile_batch=tile_batch,
                draws=draws,
                callback=partial(callback, "sampling"),
                mask=mask,
            )

        tile = TILES[0] if settings.tile is None else settings.tile
        longer = max(image.shape[-2:])
        run = partial(in_fitting_tiles, sample, longer, tile, settings.tile_batch or 1)
        used = [networks.sd_unet, networks.ir_controlnet]
        if settings.guidance_in_pixels:
            used.append(networks.sd_vae)
        with self._present(*used):
            return finite("The sampled latent", run, used[:2])
