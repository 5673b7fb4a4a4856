"""Networks for stage 1 of DiffBIR from any file: ours, or what spandrel knows."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ..checkpoints import load_model
from ..checkpoints.completeness import require_sound
from ..checkpoints.files import model_file, read_checkpoint
from ..checkpoints.keys import unwrap
from ..checkpoints.loading import ODD_SIZES, networks_of
from ..checkpoints.stored import enough_memory
from ..compact.memory_plan import compact_strips
from ..diffir.memory_plan import diffir_strips
from ..errors import BIRError, shown, shown_path
from ..memory import StripMemory
from ..networks.compact import CompactRestorer
from ..networks.diffir import DiffIRStage2
from ..networks.swinir import SwinIR
from ..restoring import restore

IMAGE_TO_IMAGE = ("swinir", "compact", "diffir_s2")


# (height and width of the network's input, images, kind of device) -> what its strips take
Strips = Callable[[int, int, int, str], StripMemory]


@dataclass(frozen=True)
class RestorationModule:
    """A network that restores images.

    Attributes:
        restore: (B, 3, h, w) in [0, 1] -> (B, 3, h scale, w scale); not clamped if it is one of
            DiffBIR's own, see `images`.
        scale: output side divided by input side.
        name: of the architecture.
        network: what holds the weights, to be moved between devices and to plan the memory for;
            None if nothing does.
        strips: if it goes through a picture in strips by itself, and needs no tiles.
    """

    restore: Callable[[Tensor], Tensor]
    scale: int
    name: str
    network: nn.Module | None = None
    strips: Strips | None = None


def spandrel_problem() -> str | None:
    """Why spandrel cannot be used here, with what to do, as the end of a sentence; None if it
    can."""
    try:
        import spandrel  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name == "spandrel":
            return "is not installed; install the extra: pip install comfyui-bir[spandrel]"
        return f"lacks the package {error.name}; install it"
    except (ImportError, RuntimeError, AttributeError) as error:
        # A torchvision that was built for another torch raises RuntimeError.
        return (
            f"cannot be imported ({str(error).splitlines()[0]}); install builds of torch and "
            "torchvision that belong together"
        )
    return None


def scale_of(model: object) -> int:
    """Output side divided by input side, as a network says it; 1 for what says nothing."""
    for owner in (model, getattr(model, "config", None), getattr(model, "info", None)):
        scale = getattr(owner, "scale", None)
        if isinstance(scale, int):
            return scale
    return 1


def as_restoration_module(
    stage1: RestorationModule | Callable[[Tensor], Tensor], scale: int | None
) -> RestorationModule:
    """A network or a function as stage 1.

    Args:
        scale: of a function; None takes it from the model, see `scale_of`.

    Raises:
        BIRError: a DiffIR for inpainting.
    """
    if isinstance(stage1, RestorationModule):
        return stage1
    if isinstance(stage1, DiffIRStage2 | CompactRestorer):
        return in_strips(stage1)
    network = stage1 if isinstance(stage1, nn.Module) else None
    return RestorationModule(
        stage1, scale_of(stage1) if scale is None else scale, "custom", network
    )


def load_restoration_module(
    path: str | Path, *, device: torch.device | str = "cpu"
) -> RestorationModule:
    """Load a SwinIR, a DiffIR, a compact restoration module, or through spandrel an RRDBNet
    (BSRNet), SCUNet or any other network for RGB pictures, in float32.

    Raises:
        BIRError: unreadable, of another kind, or spandrel is needed and not installed.
    """
    held = networks_of(path)
    ours = next((row for row in held if row.name in IMAGE_TO_IMAGE), None)
    if ours is not None:
        model = load_model(path, architecture=ours.name, device=device)
        if isinstance(model, SwinIR):
            return RestorationModule(model, model.config.scale, ours.name, model)
        return in_strips(model)
    if held:
        raise BIRError(
            f"Expected a network that restores pictures for stage 1, but {path} is a "
            f"{held[0].description} file, {held[0].belongs}; choose another file."
        )
    problem = spandrel_problem()
    if problem is not None:
        raise BIRError(
            f"Expected a SwinIR or DiffIR for stage 1, but {path} is another network, and the "
            f"package spandrel that may know it {problem}."
        )
    import spandrel

    from ..spandrel_plugin import as_published

    tensors = unwrap(read_checkpoint(model_file(path)))
    try:
        with enough_memory(shown_path(path)):
            descriptor = spandrel.ModelLoader(device=device).load_from_state_dict(dict(tensors))
    except (spandrel.UnsupportedModelError, *ODD_SIZES) as error:
        raise BIRError(
            f"Expected a network that restores pictures for stage 1, but spandrel does not know "
            f"the one in {path}; its first keys are {', '.join(map(shown, list(tensors)[:5]))}: "
            "choose another file."
        ) from error
    rgb = isinstance(descriptor, spandrel.ImageModelDescriptor) and (
        descriptor.input_channels == descriptor.output_channels == 3
    )
    if not rgb:
        raise BIRError(
            f"Expected a network for RGB pictures for stage 1, but {path} is a "
            f"{descriptor.architecture.name} with other channels; choose another file."
        )
    require_sound(descriptor.model.state_dict(), tensors, str(path))
    descriptor.eval()
    descriptor.model.requires_grad_(False)
    network = as_published(descriptor)
    name = descriptor.architecture.name
    return RestorationModule(network, descriptor.scale, name, descriptor.model)


def in_strips(model: nn.Module) -> RestorationModule:
    """A DiffIR or a compact restoration module, which go through a picture in strips.

    Raises:
        BIRError: a DiffIR for inpainting.
    """
    if isinstance(model, CompactRestorer):
        name, scale = "compact", model.config.scale
        strips: Strips = partial(compact_strips, model.config)
    else:
        assert isinstance(model, DiffIRStage2)
        name, scale = "diffir_s2", model.config.scale
        strips = partial(diffir_strips, model.config)
        if model.config.task == "inpainting":
            raise BIRError(
                "Expected a network without a mask for stage 1, but a DiffIR for inpainting came; "
                "choose one for super-resolution or deblurring."
            )

    return RestorationModule(lambda image: restore(image, model), scale, name, model, strips)
