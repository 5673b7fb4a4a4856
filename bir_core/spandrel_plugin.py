"""DiffIR in spandrel's registry, for programs that load restoration models through spandrel, and
how the models of spandrel restore.

Importing this file needs spandrel, which ComfyUI brings along and `bir_core` does not require.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

import torch
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
from .compact.memory_plan import compact_strips
from .compact.restore import restore_compact
from .diffir.memory_plan import diffir_strips
from .diffir.restore import restore
from .errors import BIRError
from .images import PadMode, crop, pad_to_multiple
from .latents import PADDED_MULTIPLE
from .memory import StripMemory
from .networks.compact import CompactConfig, CompactRestorer
from .networks.diffir import DiffIRStage2

ARCHITECTURE_ID = "BIR_DiffIR"
# Spandrel's own id of the layout that the compact restoration module has.
COMPACT_ID = "Compact"
Callback = Callable[[int, int], None]
# Spandrel's names of the networks that DiffBIR's authors take in stage 1, and how these continue a
# picture of any size: SCUNet up to a multiple of 64, the others up to what spandrel says.
PUBLISHED_PADDING: dict[str, PadMode] = {"SwinIR": "reflect", "ESRGAN": "reflect", "SCUNet": "edge"}


class Descriptor(Protocol):
    """What is used of a model that spandrel loaded."""

    @property
    def architecture(self) -> Any: ...

    @property
    def model(self) -> nn.Module: ...

    @property
    def scale(self) -> int: ...

    @property
    def size_requirements(self) -> Any: ...

    def __call__(self, image: Tensor, /) -> Tensor: ...


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


class InStrips(NamedTuple):
    """How a network goes through a picture of any size in strips, exactly.

    Attributes:
        restore: (B, 3, H, W) in [0, 1] -> (B, 3, H scale, W scale) in [0, 1].
        memory: height and width of its input, images, and kind of device, to what that takes.
    """

    restore: Callable[[Tensor], Tensor]
    memory: Callable[[int, int, int, str], StripMemory]


def restorer_in_strips(descriptor: Descriptor, callback: Callback | None = None) -> InStrips | None:
    """How a loaded model goes through a picture in strips; None for a network that needs tiles.

    Its weights stay those of the descriptor, on whatever device they come to lie.

    Args:
        callback: called with (strips done, strips in all) after each strip of a compact module; a
            DiffIR has that of `register`.
    """
    if descriptor.architecture.id == ARCHITECTURE_ID:
        assert isinstance(descriptor.model, DiffIRStage2)
        return InStrips(descriptor, partial(diffir_strips, descriptor.model.config))
    if descriptor.architecture.id != COMPACT_ID:
        return None
    body = cast(Sequence[nn.Module], descriptor.model.body)
    first = cast(nn.Conv2d, body[0])
    if first.in_channels != 3 or not all(isinstance(layer, nn.PReLU) for layer in body[1::2]):
        return None
    config = CompactConfig(
        scale=descriptor.scale, features=first.out_channels, layers=len(body) // 2 - 1
    )
    with torch.device("meta"):
        restorer = CompactRestorer(config)
    restorer.body = cast(nn.ModuleList, body)
    return InStrips(
        partial(restore_compact, model=restorer, callback=callback), partial(compact_strips, config)
    )


def as_published(descriptor: Descriptor) -> Callable[[Tensor], Tensor]:
    """How a loaded model restores (B, 3, H, W) in [0, 1] to (B, 3, H scale, W scale) in stage 1 of
    DiffBIR. Spandrel clamps every result to [0, 1]; the networks of `PUBLISHED_PADDING` are called
    without it, as in the official code, and the result of any other one is spandrel's."""
    name, needs = descriptor.architecture.name, descriptor.size_requirements
    if name not in PUBLISHED_PADDING:
        return descriptor

    def restored(image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        multiple = PADDED_MULTIPLE if name == "SCUNet" else needs.multiple_of
        if min(height, width) < needs.minimum:
            multiple = max(multiple, needs.minimum)
        padded = pad_to_multiple(image, multiple, PUBLISHED_PADDING[name])
        result: Tensor = descriptor.model(padded)
        return crop(result, height * descriptor.scale, width * descriptor.scale)

    return restored
