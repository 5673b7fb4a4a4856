"""The sizes of DiffIR's networks, and those of the published files."""

from dataclasses import dataclass
from typing import Literal

from ..errors import BIRError

Task = Literal["sr", "deblur", "inpainting"]
LayerNormKind = Literal["BiasFree", "WithBias"]


@dataclass(frozen=True, kw_only=True)
class DiffIRConfig:
    """Sizes of a DiffIR network; a checkpoint's tensor shapes determine all of them.

    `encoder_features` are the channels of the CPEN's first layers; all published files have 64.
    """

    task: Task
    scale: int = 1
    dim: int = 48
    num_blocks: tuple[int, int, int, int] = (3, 5, 6, 6)
    num_refinement_blocks: int = 4
    heads: tuple[int, int, int, int] = (1, 2, 4, 8)
    ffn_expansion_factor: float = 2.0
    bias: bool = False
    layer_norm: LayerNormKind = "WithBias"
    n_encoder_res: int = 5
    encoder_features: int = 64
    n_denoise_res: int = 1
    timesteps: int = 4
    linear_start: float = 0.1
    linear_end: float = 0.99

    def __post_init__(self) -> None:
        scales = (1, 2, 4) if self.task == "sr" else (1,)
        if self.scale not in scales:
            raise BIRError(
                f"A DiffIR for {self.task} should have a scale of {scales}, but {self.scale} came; "
                "choose one of these."
            )
        for level, heads in enumerate(self.heads):
            if (self.dim << level) % heads:
                raise BIRError(
                    f"The width {self.dim << level} of level {level + 1} should divide by its "
                    f"number of heads, but {heads} came; choose another dim or heads."
                )

    @property
    def in_channels(self) -> int:
        """Channels of the image that goes in: RGB, and the mask for inpainting."""
        return 4 if self.task == "inpainting" else 3

    @property
    def corrects(self) -> bool:
        """Whether the result is the image and a correction. Of inpainting it is with refinement
        blocks, which the published networks lack: the hole then comes filled roughly (see
        `diffir.rough_filling`), and small networks soon learn what is wrong with that."""
        return self.task != "inpainting" or self.num_refinement_blocks > 0

    @property
    def unshuffle(self) -> int:
        """Side of the pixel blocks that the DIRformer's input folds into channels, so that super-
        resolution always enlarges the working grid by 4."""
        return 4 // self.scale if self.task == "sr" else 1

    @property
    def prior_unshuffle(self) -> int:
        """The same for the CPEN's view of the low-quality image."""
        return self.unshuffle if self.task == "sr" else 4

    @property
    def size_multiple(self) -> int:
        """Pixels by which the sides of the network's input must divide."""
        return 8 * self.unshuffle


def _realsr(scale: int) -> DiffIRConfig:
    return DiffIRConfig(
        task="sr",
        scale=scale,
        dim=64,
        num_blocks=(13, 1, 1, 1),
        num_refinement_blocks=13,
        ffn_expansion_factor=2.2,
        layer_norm="BiasFree",
        n_encoder_res=9,
    )


def _inpainting(latent_blocks: int, n_encoder_res: int) -> DiffIRConfig:
    return DiffIRConfig(
        task="inpainting",
        dim=52,
        num_blocks=(1, 1, 1, latent_blocks),
        num_refinement_blocks=0,
        ffn_expansion_factor=1.8,
        n_encoder_res=n_encoder_res,
    )


# The shipped options of the official code. RealSR and SRGAN files hold the same network.
OFFICIAL_CONFIGS: dict[str, DiffIRConfig] = {
    "realsr_x4": _realsr(4),
    "realsr_x2": _realsr(2),
    "realsr_x1": _realsr(1),
    "deblur": DiffIRConfig(task="deblur"),
    "inpainting": _inpainting(9, 5),
    "inpainting_big": _inpainting(20, 8),
}
