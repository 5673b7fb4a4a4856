"""Training of IRControlNet, stage 2 of DiffBIR: a copy of the UNet's encoder learns to steer the
frozen UNet by what stage 1 restored."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...checkpoints import load_model
from ...diffbir.pipeline import DiffBIR
from ...diffbir.prompts import encode_prompts
from ...diffbir.settings import DiffBIRSettings
from ...diffbir.versions import VERSIONS
from ...diffbir.which_version import LATENT_SIDES, ask_base
from ...diffusion.denoisers import Parameterization
from ...diffusion.schedules import TRAINED_STEPS, q_sample, sd_alphas_cumprod, v_target
from ...errors import BIRError
from ...latents import LATENT_SCALE, PADDED_MULTIPLE
from ...memory import CPU
from ...networks.autoencoder import SDVAE
from ...networks.ir_controlnet import IRControlNet
from ...networks.swinir import SwinIR
from ...networks.text_encoder import TextEncoder
from ...networks.unet import SDUNet
from ..data import Batch
from ..degrading import refuse_holes
from ..phases import Phase, Training, Update
from ..recipe import Recipe
from ..start_files import StartFiles
from ..toml_tables import require

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class IRControlNetRecipe(Recipe):
    """Of stage 2 of DiffBIR; the sizes of the network are those of the base.

    Attributes:
        parameterization: what the base predicts: `eps` with the schedule of Stable Diffusion 2.1
            (DiffBIR v1 and v2), `v` with zero terminal SNR (v2.1).
        noise_aug: the condition latent gets the noise of a timestep below this; 0: none.
        sampling_steps: of the spaced sampler, for the pictures of validation.
    """

    parameterization: Parameterization = "eps"
    noise_aug: int = 0
    sampling_steps: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_holes(self.data)
        require(
            0 <= self.noise_aug <= TRAINED_STEPS,
            f"a `noise_aug` from 0 to {TRAINED_STEPS} timesteps",
            self.noise_aug,
        )
        require(
            0 < self.sampling_steps <= TRAINED_STEPS,
            f"`sampling_steps` from 1 to {TRAINED_STEPS}",
            self.sampling_steps,
        )

    @property
    def scale(self) -> int:
        """Side of hq divided by side of lq: 1, for DiffBIR enlarges pictures before."""
        return 1

    @property
    def size_multiple(self) -> int:
        """Pixels by which the sides of lq must divide."""
        return PADDED_MULTIPLE


class Prompts(nn.Module):
    """The context of captions; that of the empty one is computed once.

    Args:
        encoder: the base's; kept only if `captions` says that pictures come with words.
    """

    empty: Tensor

    def __init__(self, encoder: TextEncoder, *, captions: bool) -> None:
        super().__init__()
        self.encoder = encoder if captions else None
        self.register_buffer("empty", encode_prompts(encoder, [""]), persistent=False)
        if captions:
            encode_prompts(encoder, ["word"])  # the tokenizer is there, or the user hears it now

    def forward(self, captions: Sequence[str], count: int) -> Tensor:
        """(count, L, D) for as many captions, or for none where no picture has one."""
        if self.encoder is None or not any(captions):
            return self.empty.expand(count, -1, -1)
        return encode_prompts(self.encoder, captions).to(self.empty)


class IRControlNetLoss(nn.Module):
    """Mean squared error of the frozen UNet's prediction under the control of the network that
    learns (Lin et al., "DiffBIR", section on IRControlNet).

    All draws come from the batch's generator, in this order: the latent of hq, timesteps and noise
    of the condition where it is augmented, timesteps, noise.

    Args:
        model: learns.
        sd_unet, sd_vae, prompts, restoration_module: stay as they are.
        recipe: what is predicted, and the noise on the condition.
    """

    def __init__(
        self,
        model: IRControlNet,
        sd_unet: SDUNet,
        sd_vae: SDVAE,
        prompts: Prompts,
        restoration_module: SwinIR,
        recipe: IRControlNetRecipe,
    ) -> None:
        super().__init__()
        self.model, self.sd_unet, self.sd_vae, self.prompts = model, sd_unet, sd_vae, prompts
        self.restoration_module = restoration_module
        self.parameterization, self.noise_aug = recipe.parameterization, recipe.noise_aug
        self.alphas_cumprod = sd_alphas_cumprod(zero_snr=recipe.parameterization == "v")

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`total` is what is optimised."""
        latent, condition, context = self.frozen_inputs(batch)
        timesteps = self._timesteps(TRAINED_STEPS, batch)
        noise = _normal_like(latent, batch)
        abar = self.alphas_cumprod[timesteps]
        noisy = q_sample(latent, noise, abar)
        target = noise if self.parameterization == "eps" else v_target(latent, noise, abar)
        told = timesteps.to(latent.device)
        control = self.model(noisy, condition, told, context)
        predicted = self.sd_unet(noisy, told, context, control)
        return {"total": F.mse_loss(predicted.float(), target)}

    @torch.no_grad()
    def frozen_inputs(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Latents of the picture and of the condition, (B, 4, h, w) float32 times the latent
        scale, and the context (B, L, D)."""
        picture = self.sd_vae.encode(2 * batch.hq - 1, generator=batch.generator)
        restored = self.restoration_module(batch.lq)
        condition = LATENT_SCALE * self.sd_vae.encode(2 * restored - 1).float()
        if self.noise_aug:
            abar = self.alphas_cumprod[self._timesteps(self.noise_aug, batch)]
            condition = q_sample(condition, _normal_like(condition, batch), abar)
        context = self.prompts(batch.captions, len(batch.hq))
        return LATENT_SCALE * picture.float(), condition, context

    def _timesteps(self, end: int, batch: Batch) -> Tensor:
        return torch.randint(end, (len(batch.hq),), generator=batch.generator)


def _normal_like(latent: Tensor, batch: Batch) -> Tensor:
    return torch.randn(latent.shape, generator=batch.generator).to(latent)


def ir_controlnet_training(recipe: IRControlNetRecipe, files: StartFiles) -> Training:
    """IRControlNet from the UNet of `files.base`, or from `files.start_from`.

    Args:
        files: `base`, Stable Diffusion with UNet, VAE and text encoder, in a file or in a folder of
            diffusers; `restoration_module`, a SwinIR of stage 1; `start_from`, an IRControlNet to
            go on from.

    Raises:
        BIRError: a file of another network, or an IRControlNet of other sizes than the base.
    """
    assert files.base is not None and files.restoration_module is not None  # needed by the method
    sd_unet = cast(SDUNet, load_model(files.base, architecture="sd_unet"))
    sd_vae = cast(SDVAE, load_model(files.base, architecture="sd_vae"))
    encoder = cast(TextEncoder, load_model(files.base, architecture="text_encoder"))
    if encoder.config.width != sd_unet.config.context_dim:
        raise BIRError(
            f"Expected a text encoder of the width {sd_unet.config.context_dim} for the UNet in "
            f"{files.base}, but it is {encoder.config.width}; choose a whole Stable Diffusion 2.1."
        )
    module = cast(SwinIR, load_model(files.restoration_module, architecture="swinir"))
    if module.config.scale != 1:
        raise BIRError(
            f"Expected a restoration module that keeps the size of pictures, but the SwinIR in "
            f"{files.restoration_module} enlarges {module.config.scale} times; choose a stage 1 "
            "of DiffBIR."
        )
    prompts = Prompts(encoder, captions=recipe.data.captions is not None)
    check_parameterization(sd_unet, prompts.empty, recipe.parameterization, files.base)
    model = _start_network(sd_unet, files.start_from)
    loss = IRControlNetLoss(model, sd_unet, sd_vae, prompts, module, recipe)
    if recipe.precision == "bf16":
        for frozen in (sd_unet, encoder):
            store_in_bfloat16(frozen)
    version = next(
        name for name, row in VERSIONS.items() if row.parameterization == recipe.parameterization
    )
    settings = DiffBIRSettings(
        sampler="spaced",
        steps=recipe.sampling_steps,
        cfg=1.0,
        tile=0,
        vae_tile=0,
        stage1_tile=0,
        color_fix="none",
        short_side=0,
    )

    def restore(network: nn.Module, lq: Tensor, hq: Tensor) -> Tensor:
        pipeline = DiffBIR(
            sd_unet=sd_unet,
            ir_controlnet=network,
            sd_vae=sd_vae,
            stage1=module,
            version=version,
        )
        with torch.autocast(lq.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            return pipeline(
                lq, prompts.empty, task="face", upscale_by=1.0, settings=settings, seed=recipe.seed
            )

    update = Update("network", loss, list(model.parameters()), recipe.optimizer)
    return Training(
        model=model,
        phases=(Phase(1, (update,)),),
        restore=restore,
        # Of the UNet only what lies behind the control: nothing before it is kept.
        blocks=(*model.input_blocks, model.middle_block, *sd_unet.output_blocks),
    )


def _start_network(sd_unet: SDUNet, start: Path | None) -> IRControlNet:
    if start is None:
        with torch.random.fork_rng():  # it draws weights, which the UNet's then replace
            return IRControlNet.from_unet(sd_unet)
    model = cast(IRControlNet, load_model(start, architecture="ir_controlnet"))
    if model.config != sd_unet.config:
        raise BIRError(
            f"Expected an IRControlNet of the sizes of the base, {sd_unet.config}, in {start}, but "
            f"it holds {model.config}; choose files that belong together."
        )
    return model


def check_parameterization(
    sd_unet: SDUNet, context: Tensor, parameterization: Parameterization, name: Path
) -> None:
    """Ask a UNet what it predicts.

    Args:
        context: (1, L, D) of the empty caption.
        name: of its file, for the sentences.

    Raises:
        BIRError: it predicts eps where the recipe trains v. The reverse is only a warning in the
            log, because an untrained base, as in a smoke run, looks like it.
    """
    config = sd_unet.config
    side = LATENT_SIDES * config.size_multiple
    answer = ask_base(
        lambda noise, timestep: sd_unet(noise, timestep, context),
        (config.in_channels, side, side),
        CPU,
    )
    if parameterization == "v" and answer.predicts == "eps":
        raise BIRError(
            f"Expected a base that predicts v with zero terminal SNR, but {name} predicts the "
            "noise (eps); give DiffBIR's zero-SNR base, or train with parameterization = eps."
        )
    if parameterization == "eps" and answer.predicts != "eps":
        logger.warning(
            "%s does not predict the noise (eps) as Stable Diffusion 2.1 base does: the likeness "
            "is %.2f of 1",
            name,
            answer.likeness,
        )


def store_in_bfloat16(network: nn.Module) -> None:
    """Keep the weights of convolutions and linear layers as mixed precision computes with them: the
    same numbers, half the memory, and no cast at every use."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.to(torch.bfloat16)
