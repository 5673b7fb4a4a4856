"""The stages of DiffBIR at work, each a method: with the networks where they compute.

What is decided before the work, tiles and memory, comes in a `Run`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ..diffusion.noise import Draws
from ..diffusion.schedules import sd_alphas_cumprod
from ..exact_vae.tiled import decode_tiled, encode_tiled
from ..fallbacks import finite, in_fitting_tiles, whole_or_in_tiles
from ..images import crop, pad_to_multiple, resize
from ..latents import LATENT_SCALE, PADDED_MULTIPLE
from ..memory import dtype_of, visiting
from ..tiling import Tile
from .color_fix import COLOR_FIXES, fix_colors
from .masks import latent_mask
from .memory_plan import TILES
from .networks import DiffBIRNetworks
from .piece import guidance_of_piece, in_latents, resized_tile, seen, whole_of
from .restoration_modules import RestorationModule
from .runs import Run
from .settings import DiffBIRSettings
from .stage1 import Stage1Sizes, restore_stage1
from .stage2 import Stage2
from .versions import find_version

# (name of the stage, steps done, steps in all); may raise to cancel
Callback = Callable[[str, int, int], None]


class Stages:
    """Both stages with their networks and the VAE between them.

    Args:
        networks: on the device, or with `offload` on the host.
        version: of the networks.
        device: where they compute.
        offload, compile, folder: as in `DiffBIR`.
    """

    def __init__(
        self,
        networks: DiffBIRNetworks,
        version: str,
        device: torch.device,
        offload: bool,
        compile: str | None = None,
        folder: Path | None = None,
    ) -> None:
        self.networks = networks
        self.version = version
        self.device = device
        self.offload = offload
        self.compile = compile
        self.folder = folder
        self.alphas_cumprod = sd_alphas_cumprod(zero_snr=find_version(version).zero_snr)

    def _present(self, *networks: nn.Module | None) -> AbstractContextManager[None]:
        """Networks on the device for as long as a stage works."""
        return visiting(self.device, *networks) if self.offload else nullcontext()

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
            x = (2 * image).sub_(1).to(dtype_of(vae))
            report = partial(callback, "encoding")
            return whole_or_in_tiles(
                first,
                lambda: vae.encode(x),  # type: ignore[operator]
                lambda side: encode_tiled(vae, x, tile=side, folder=self.folder, callback=report),
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
                lambda side: decode_tiled(vae, x, tile=side, folder=self.folder, callback=report),
                TILES[0],
            ).float()

        with self._present(vae):
            return finite("The decoded picture", run, [vae]).add_(1).div_(2)

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
            compile=self.compile,
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
