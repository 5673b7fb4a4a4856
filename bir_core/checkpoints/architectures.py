"""Which network a checkpoint holds: one table.

Sizes come from tensor shapes, so no configuration file is needed beside the weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from ..networks.autoencoder import SDVAE, VAEConfig
from ..networks.compact import CompactRestorer
from ..networks.damage import DamageFinder
from ..networks.diffir import DiffIRStage1, DiffIRStage2
from ..networks.diffir_config import OFFICIAL_CONFIGS
from ..networks.estimator import Estimator
from ..networks.ir_controlnet import IRControlNet
from ..networks.swinir import SwinIR, SwinIRConfig
from ..networks.text_encoder import TextEncoder, TextEncoderConfig
from ..networks.unet import SDUNet, UNetConfig
from . import compact, damage, diffbir, diffir, diffusers, estimator
from .keys import StateDict


class NetworkConfig(Protocol):
    """All sizes of a network, as a frozen dataclass; with `task` and `scale` where it has them."""

    @property
    def size_multiple(self) -> int:
        """What the sides of the network's input divide by."""


@dataclass(frozen=True)
class ModelInfo:
    """What a checkpoint is.

    Attributes:
        architecture: `diffir_s1`, `diffir_s2`, `compact`, `swinir`, `damage_finder`, `estimator`,
            `ir_controlnet`, `sd_unet`, `sd_vae` or `text_encoder`.
        variant: a published variant (`realsr_x4`, also of the SRGAN files, which hold the same
            network; `deblur`, `inpainting`, ...; `diffbir` for SwinIR and IRControlNet of every
            version; `sd2.1`) or `custom`.
        task: `sr`, `deblur` or `inpainting` of a DiffIR; `restoration` (stage 1 of DiffBIR),
            `detection`, `estimation`, `condition`, `generation`, `autoencoding` or `embedding` of
            the others.
        scale: output size divided by input size; 1 for networks on latents.
        config: all sizes of the network.
        parameters: their number, each counted once.
        dtype: of the weights in the file.
        size_multiple: what the sides of the network's own input divide by, and at the same time the
            least side that it takes: pixels, for `sd_unet` and `ir_controlnet` latent pixels.
        may_be_tiled: whether overlapping tiles of the input give about what the whole gives.
        half_precision: whether the weights may be float16 or bfloat16.
    """

    architecture: str
    variant: str
    task: str
    scale: int
    config: NetworkConfig
    parameters: int
    dtype: torch.dtype
    size_multiple: int
    may_be_tiled: bool
    half_precision: bool


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A row of the table. A file is of this architecture if it holds all `required` keys and none
    of the `absent` ones.

    Attributes:
        belongs: what a user who gave the file in another one's place should know.
        canonical: from the tensors of a file to those of this network under its own names.
        optional: keys that a file may lack; the configuration's values take their place. In files
            of half precision they have their full one.
        published_tables: what published files hold besides the weights; other programs refuse a
            file without.
        folder: where a folder in the layout of diffusers has it; "" if it has none.
        task: `ModelInfo.task`, where the configuration does not say it.
        may_be_tiled, half_precision: as in `ModelInfo`.
    """

    name: str
    description: str
    belongs: str
    required: tuple[str, ...]
    absent: tuple[str, ...] = ()
    canonical: Callable[[StateDict], StateDict]
    optional: tuple[str, ...] = ()
    published_tables: Callable[[Any], StateDict] = lambda network: {}
    folder: str = ""
    config: Callable[[StateDict], NetworkConfig]
    build: type[nn.Module]
    variants: Mapping[str, NetworkConfig] = field(default_factory=dict)
    task: str = ""
    may_be_tiled: bool = True
    half_precision: bool = True

    def holds(self, tensors: StateDict) -> bool:
        """Whether `tensors`, in canonical form, are of this architecture."""
        return all(key in tensors for key in self.required) and not any(
            key in tensors for key in self.absent
        )


@dataclass(frozen=True)
class ForeignFile:
    """A kind of file that people load by mistake, with the place where it belongs."""

    key_part: str
    sentence: str


# Of a file that holds several networks, `inspect` and `load_model` take the first in this order.
ARCHITECTURES = (
    Architecture(
        name="diffir_s2",
        description="DiffIR stage 2",
        belongs="which belongs in Load DiffIR Model",
        required=(*diffir.DIFFIR_REQUIRED, "condition.E.0.weight", "denoise.resmlp.0.weight"),
        canonical=diffir.stage2_tensors,
        optional=("diffusion.betas",),
        config=diffir.diffir_config,
        build=DiffIRStage2,
        variants=OFFICIAL_CONFIGS,
        # The prior and the attention see the whole picture: a tile has others than its picture.
        may_be_tiled=False,
    ),
    Architecture(
        name="diffir_s1",
        description="DiffIR stage 1",
        belongs="which needs the high-quality picture as well and serves training only",
        required=(*diffir.DIFFIR_REQUIRED, "E.E.0.weight"),
        canonical=dict,
        config=diffir.diffir_config,
        build=DiffIRStage1,
        variants=OFFICIAL_CONFIGS,
        may_be_tiled=False,
    ),
    Architecture(
        name="ir_controlnet",
        description="DiffBIR IRControlNet",
        belongs="which belongs in Load DiffBIR ControlNet",
        required=diffbir.IR_CONTROLNET_REQUIRED,
        absent=diffbir.IR_CONTROLNET_ABSENT,
        canonical=diffbir.ir_controlnet_tensors,
        config=diffbir.ir_controlnet_config,
        build=IRControlNet,
        variants={"diffbir": UNetConfig()},
        task="condition",
    ),
    Architecture(
        name="sd_unet",
        description="Stable Diffusion 2.1 UNet",
        belongs="which belongs in Load Checkpoint",
        required=diffbir.SD_UNET_REQUIRED,
        canonical=diffbir.sd_unet_tensors,
        config=diffbir.sd_unet_config,
        folder="unet",
        build=SDUNet,
        variants={"sd2.1": UNetConfig()},
        task="generation",
    ),
    Architecture(
        name="swinir",
        description="SwinIR",
        belongs="which belongs in Load Upscale Model",
        required=diffbir.SWINIR_REQUIRED,
        canonical=diffbir.swinir_tensors,
        config=diffbir.swinir_config,
        build=SwinIR,
        published_tables=SwinIR.published_tables,
        variants={"diffbir": SwinIRConfig()},
        task="restoration",
        half_precision=False,  # the official code runs it in float32 only
    ),
    Architecture(
        name="compact",
        description="compact restoration module",
        belongs="which belongs in Load Upscale Model",
        required=compact.COMPACT_REQUIRED,
        canonical=compact.compact_tensors,
        config=compact.compact_config,
        build=CompactRestorer,
        task="restoration",
    ),
    Architecture(
        name="damage_finder",
        description="finder of scratches",
        belongs="which belongs in Find Scratches (BIR)",
        required=damage.DAMAGE_REQUIRED,
        canonical=dict,
        config=damage.damage_config,
        build=DamageFinder,
        task="detection",
    ),
    Architecture(
        name="estimator",
        description="estimator of what is wrong with a picture",
        belongs="which restores nothing; bir inspect asks it",
        required=estimator.ESTIMATOR_REQUIRED,
        canonical=dict,
        config=estimator.estimator_config,
        build=Estimator,
        task="estimation",
    ),
    Architecture(
        name="sd_vae",
        description="Stable Diffusion VAE",
        belongs="which belongs in Load VAE",
        required=diffbir.SD_VAE_REQUIRED,
        canonical=diffbir.sd_vae_tensors,
        config=diffbir.sd_vae_config,
        folder="vae",
        build=SDVAE,
        variants={"sd": VAEConfig()},
        task="autoencoding",
    ),
    Architecture(
        name="text_encoder",
        description="OpenCLIP text encoder",
        belongs="which belongs in Load CLIP",
        required=diffbir.TEXT_ENCODER_REQUIRED,
        canonical=diffbir.text_encoder_tensors,
        config=diffbir.text_encoder_config,
        folder=diffusers.TEXT_FOLDER,
        build=TextEncoder,
        variants={"sd2.1": TextEncoderConfig()},
        task="embedding",
        may_be_tiled=False,
    ),
)
# Of a folder in the layout of diffusers.
FOLDERS = {row.name: row.folder for row in ARCHITECTURES if row.folder}
FOREIGN_FILES = (
    ForeignFile(
        "model.diffusion_model.",
        "it looks like a full Stable Diffusion checkpoint, which belongs in Load Checkpoint",
    ),
    ForeignFile(
        "input_hint_block.", "it looks like a ControlNet, which belongs in Load ControlNet"
    ),
    ForeignFile("zero_convs.", "it looks like a ControlNet, which belongs in a ControlNet loader"),
    ForeignFile("rdb1.conv1", "it looks like an ESRGAN, which belongs in Load Upscale Model"),
    ForeignFile(
        "relative_position_bias_table",
        "it looks like a Swin transformer for restoration, which belongs in Load Upscale Model",
    ),
    ForeignFile("post_quant_conv.", "it looks like a VAE, which belongs in Load VAE"),
    ForeignFile(
        "transformer.resblocks.", "it looks like a text encoder, which belongs in Load CLIP"
    ),
    ForeignFile("conv9.weight", "it looks like the discriminator of a GAN, which restores nothing"),
    ForeignFile("lora_", "it looks like a LoRA, which belongs in Load LoRA"),
)


def networks_in(tensors: StateDict) -> list[Architecture]:
    """The rows of all networks that unwrapped tensors hold, in the order of the table.

    Raises:
        BIRError: a layout of diffusers that lacks a part of what belongs together.
    """
    return [row for row in ARCHITECTURES if row.holds(row.canonical(tensors))]


def foreign_kind(tensors: StateDict) -> str | None:
    """What tensors of none of these networks look like, and where that belongs; None if nothing is
    known of them."""
    return next(
        (row.sentence for row in FOREIGN_FILES if any(row.key_part in key for key in tensors)), None
    )
