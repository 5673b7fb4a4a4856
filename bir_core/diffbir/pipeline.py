"""DiffBIR outside ComfyUI: stage 1 removes the degradation, stage 2 brings detail back.

Lin et al., "DiffBIR: Toward Blind Image Restoration with Generative Diffusion Prior" (ECCV 2024).
The networks come as modules and the prompts as embeddings. What memory and tiles are to be is
decided here; every stage is a method of `Stages`, and a call makes them all.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from ..checkpoints.origin import Origin
from ..diffusion.noise import Draws, NoiseSource, require_brownian_noise
from ..diffusion.sampling import SAMPLERS
from ..errors import BIRError
from ..exact_vae.mapped_files import files_folder, free_disk
from ..fallbacks import enough_memory
from ..images import masks_of_batch, require_image
from ..memory import CPU, MemoryPlan, free_memory, visiting, weight_bytes
from ..seeds import image_seeds
from .compiling import require_backend
from .masks import picture_mask
from .memory_plan import plan_diffbir
from .networks import DiffBIRNetworks
from .piece import Piece, in_latents, whole_of
from .prompts import require_prompts, rows_of
from .restoration_modules import RestorationModule, as_restoration_module
from .runs import Request, Run, require_room_for
from .settings import DiffBIRSettings, official_settings, settled
from .stage1 import stage1_sizes
from .stages import Callback, Stages
from .versions import Task, official_order
from .which_version import ask_unet, version_of

logger = logging.getLogger(__name__)


class DiffBIR(Stages):
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
        compile: a backend of torch.compile for the networks of a step of stage 2, such as
            "inductor", which makes graphs on CUDA; the first step of each size then takes minutes.
            None for none.
        folder: of the file in which maps of the VAE wait that no memory holds, with room for about
            1.5 kB for each pixel of the result; None for that of the system for temporary files.

    Raises:
        BIRError: an unknown version or backend, a version that files and base do not say or
            contradict each other in, an IRControlNet with other sizes than the UNet, or a folder
            that is none or lies in memory.
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
        compile: str | None = None,
        folder: Path | None = None,
    ) -> None:
        files_folder(folder)
        if compile is not None:
            require_backend(compile)
        configs = [getattr(network, "config", None) for network in (sd_unet, ir_controlnet)]
        if None not in configs and configs[0] != configs[1]:
            raise BIRError(
                f"IRControlNet should have the sizes of the base, {configs[0]}, but {configs[1]} "
                "came; choose files that belong together."
            )
        networks = DiffBIRNetworks(
            sd_unet=sd_unet,
            ir_controlnet=ir_controlnet,
            sd_vae=sd_vae,
            stage1=None if stage1 is None else as_restoration_module(stage1, stage1_scale),
        )
        place = torch.device(device or next(sd_unet.parameters()).device)
        if offload or device is not None:
            for each in networks.modules:
                each.to(CPU if offload else place)
        if version is None:
            with visiting(place, sd_unet if offload else None):
                predicts = ask_unet(sd_unet, place).predicts
            version = version_of(getattr(ir_controlnet, "origin", Origin()), predicts)
        super().__init__(networks, version, place, offload, compile, folder)

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
            compile=self.compile,
            folder=self.folder,
        )

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
        disk: int | None = None,
    ) -> MemoryPlan:
        """What a call takes of the memory, and in which pieces; arguments as in `Request`, errors
        as in `decide`."""
        return self.decide(
            Request(
                height=height,
                width=width,
                task=task,
                upscale_by=upscale_by,
                settings=settings,
                images=images,
                memory=memory,
                host_memory=host_memory,
                disk=disk,
            )
        ).plan

    def decide(self, request: Request) -> Run:
        """How a call goes.

        Raises:
            BIRError: as for impossible sizes in a call.
        """
        settings = request.settings or official_settings(self.version)
        order = official_order(request.task, self.version)
        sizes = stage1_sizes(
            request.height, request.width, order, request.upscale_by, settings.short_side
        )
        networks, memory, host_memory = self.networks, request.memory, request.host_memory
        disk = request.disk
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
            disk=free_disk(files_folder(self.folder)) if disk is None else disk,
            images=request.images,
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
        batch, _, height, width = image.shape
        run = self.decide(
            Request(
                height=height,
                width=width,
                task=task,
                upscale_by=upscale_by,
                settings=settings,
                images=batch,
            )
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
