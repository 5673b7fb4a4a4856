"""Nodes that load and run DiffIR."""

from pathlib import Path

import torch
from comfy_api.latest import io
from torch import Tensor

from ..bir_core.checkpoints import ModelInfo, load_model
from ..bir_core.diffir.memory_plan import diffir_strips, padded
from ..bir_core.diffir.restore import restore
from ..bir_core.errors import BIRError
from ..bir_core.images import (
    attach_alpha,
    from_channels_last,
    split_alpha,
    to_channels_last,
)
from ..bir_core.networks.diffir import DiffIRStage2
from ..bir_core.seeds import image_seeds
from ..bir_core.weights import BUILT_IN
from .host import services
from .host.node import Node
from .inputs import SHARED, DiffIRModel, noise_input, seed_input
from .operations import fault_of_file, fingerprint_of_file, masks_for, require_room_for

DTYPES = {"default": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
TASKS = {"sr": "super-resolution", "deblur": "motion deblurring", "inpainting": "inpainting"}


def describe(info: ModelInfo) -> str:
    """One line on what a model does."""
    size = f"enlarges {info.scale} times" if info.scale > 1 else "keeps the size"
    mask = ", needs a mask" if info.task == "inpainting" else ""
    return (
        f"DiffIR {info.variant}: {TASKS[info.task]}, {size}{mask}, "
        f"{info.parameters / 1e6:.1f} million parameters"
    )


def model_file(model_name: str) -> str | Path:
    """The file of an entry in the loader's list."""
    return BUILT_IN.get(model_name) or services.model_path(model_name)


class DiffIRLoader(Node):
    """A checkpoint file to a DIFFIR_MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffIRLoader",
            display_name="Load DiffIR Model",
            category="model/loaders",
            description=(
                "Loads a DiffIR stage 2 checkpoint: super-resolution, deblurring or inpainting. "
                "The file itself says which; the built-in models need no file."
            ),
            search_aliases=[
                *("diffir", "restoration model", "deblur model", "upscale model"),
                *("inpainting model", "denoise model"),
            ],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=[*BUILT_IN, *services.model_names()],
                    tooltip=(
                        "A built-in model, or a file of models/upscale_models or models/diffir. "
                        "Stage 2 files only; stage 1 files serve training."
                    ),
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(DTYPES),
                    default="default",
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "Numbers of the weights and of the computation. default: float32, the "
                        "exact result. fp16, bf16: half the memory, for fast GPUs, with small "
                        "deviations; what overflows is repeated in float32."
                    ),
                ),
            ],
            outputs=[
                DiffIRModel.Output(display_name="model"),
                io.String.Output(
                    display_name="description", tooltip="What the file holds, in one line."
                ),
            ],
        )

    @classmethod
    def execute(cls, model_name: str, weight_dtype: str = "default") -> io.NodeOutput:
        network = load_model(
            model_file(model_name), dtype=DTYPES[weight_dtype], architecture="diffir_s2"
        )
        assert isinstance(network.info, ModelInfo)
        return io.NodeOutput(services.manage(network), describe(network.info))

    @classmethod
    def validate_inputs(cls, model_name: str | None) -> bool | str:
        return fault_of_file(model_name, model_file, "diffir_s2")

    @classmethod
    def fingerprint_inputs(cls, model_name: str | None, **_: str) -> object:
        return fingerprint_of_file(model_name, model_file)


class DiffIRRestore(Node):
    """An image, and a mask for inpainting, to the restored image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffIRRestore",
            display_name="Restore Image (DiffIR)",
            category="image/restoration",
            description=(
                "Restores an image of any size with DiffIR: enlarges, deblurs or fills holes, as "
                "the model was trained to. The whole image has one prior; there are no tiles and "
                "no seams."
            ),
            search_aliases=[
                *("diffir", "super resolution", "upscale", "enlarge", "deblur", "motion blur"),
                *("denoise", "remove noise", "inpaint", "repair", "scratch", "restore photo"),
                *("photo restoration", "old photo", "blurry", "unblur", "sharpen"),
                *("remove artifacts", "jpeg artifacts"),
            ],
            inputs=[
                DiffIRModel.Input("model", tooltip="From Load DiffIR Model."),
                io.Image.Input(
                    "image",
                    tooltip="Any size from 1 pixel on. A batch is restored image by image; an "
                    "alpha channel is kept, and enlarged with the image.",
                ),
                seed_input(
                    "Start of the diffusion on the prior: image i of a batch takes "
                    "seed + i. Changes fine detail a little; the same seed gives the same picture."
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="For inpainting models only: 0.5 or more where the image is to be "
                    "filled, of the size of the image; one for the whole batch, or one per image.",
                ),
                io.Int.Input(
                    "strip",
                    default=0,
                    min=0,
                    max=16384,
                    optional=True,
                    advanced=True,
                    tooltip="Rows that are computed at a time: fewer need less memory and more "
                    "time. The result does not depend on it. 0 chooses by the free memory.",
                ),
                noise_input(),
            ],
            outputs=[io.Image.Output(tooltip="The restored image, scale times as large.")],
        )

    @classmethod
    def execute(
        cls,
        model: services.ManagedModel,
        image: Tensor,
        seed: int,
        mask: Tensor | None = None,
        strip: int = 0,
        noise: str = "per image",
    ) -> io.NodeOutput:
        colours, alpha = split_alpha(from_channels_last(image.float()))
        network, device = model.network, model.device
        assert isinstance(network, DiffIRStage2)
        height, width = colours.shape[-2:]
        masks = masks_for(mask, len(colours), height, width)
        if masks is None and network.config.task == "inpainting":
            raise BIRError(
                "A DiffIR for inpainting should have a mask that shows the hole, but none came, or "
                "the empty one of Load Image; paint the hole with Open in MaskEditor and connect "
                "the MASK output."
            )
        scale = network.config.scale
        require_room_for(colours, scale, lambda scale: (int(height * scale), int(width * scale)))
        progress = services.batch_progress(len(colours), "strip")
        dtype = next(network.parameters()).dtype
        size = padded(network.config, height, width)
        needs = diffir_strips(network.config, *size, device_type=device.type)
        model.load(needs.free_for(strip or None, dtype))
        restored, seeds = [], image_seeds(seed, len(colours), noise == SHARED)
        for index in range(len(colours)):
            # One at a time: a result then depends neither on the batch nor on its memory.
            one = slice(index, index + 1)
            picture = restore(
                colours[one].to(device),
                network,
                mask=None if masks is None else masks[one].to(device),
                seed=seeds[index],
                strip=strip or None,
                callback=progress(index),
            )
            restored.append(services.to_output(picture))
        pictures = attach_alpha(torch.cat(restored), alpha)
        return io.NodeOutput(services.to_output(to_channels_last(pictures)))
