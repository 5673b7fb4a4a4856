"""DiffIR in spandrel's registry, for programs that load restoration models through spandrel.

Importing this file needs spandrel, which ComfyUI brings along and `bir_core` does not require.
"""

from collections.abc import Callable
from typing import cast

from spandrel import (
    MAIN_REGISTRY,
    Architecture,
    ArchSupport,
    ImageModelDescriptor,
    ModelTiling,
    SizeRequirements,
    StateDict,
)
from torch import Tensor, nn

from .checkpoints import ModelInfo, load_model
from .diffir.restore import restore
from .errors import BIRError
from .networks.diffir import DiffIRStage2

ARCHITECTURE_ID = "BIR_DiffIR"


def is_diffir(state_dict: StateDict) -> bool:
    """Whether an unwrapped state dict is of a DiffIR, of either stage."""
    return (
        "G.patch_embed.proj.weight" in state_dict
        and "G.latent.0.attn.kernel.0.weight" in state_dict
    )


class DiffIRArchitecture(Architecture[nn.Module]):
    """How spandrel detects and loads the stage 2 network.

    A call of the loaded model restores one image with the noise of seed 0, so that equal images
    give equal results, and calls `callback(done, total)` at least once per block.
    """

    def __init__(self, callback: Callable[[int, int], None] | None = None) -> None:
        super().__init__(id=ARCHITECTURE_ID, name="DiffIR", detect=is_diffir)
        self.callback = callback

    def load(self, state_dict: StateDict) -> ImageModelDescriptor[nn.Module]:
        """Build the network of a state dict.

        Raises:
            BIRError: a stage 1 file, a damaged one, or an inpainting network: spandrel's users
                that take one image and no mask cannot run it.
        """
        model = load_model(state_dict, architecture="diffir_s2")
        assert isinstance(model, DiffIRStage2)
        config, info = model.config, cast(ModelInfo, model.info)
        if config.task == "inpainting":
            raise BIRError(
                "Expected a model that restores an image alone, but this DiffIR fills holes and "
                "needs a mask as well; load it with Load DiffIR Model or bir_core.load_model."
            )

        def run(network: nn.Module, image: Tensor) -> Tensor:
            return restore(image, network, seed=0, callback=self.callback).to(image.dtype)

        return ImageModelDescriptor(
            model,
            model.state_dict(),
            architecture=self,
            purpose="SR" if config.scale > 1 else "Restoration",
            tags=[config.task, f"dim {config.dim}"],
            supports_half=info.half_precision,
            supports_bfloat16=info.half_precision,
            scale=config.scale,
            input_channels=3,
            output_channels=3,
            size_requirements=SizeRequirements(multiple_of=info.size_multiple),
            tiling=ModelTiling.SUPPORTED if info.may_be_tiled else ModelTiling.DISCOURAGED,
            call_fn=run,
        )


def register(callback: Callable[[int, int], None] | None = None) -> None:
    """Add DiffIR to spandrel's main registry; without effect if it is there already.

    Args:
        callback: receives the progress within each image; may raise to cancel.
    """
    support = ArchSupport.from_architecture(DiffIRArchitecture(callback))
    MAIN_REGISTRY.add(support, ignore_duplicates=True)
