"""Nodes around the two stages: the restoration module before, the picture's own size after."""

from typing import Any, get_args

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..bir_core.diffbir.memory_plan import PLENTY
from ..bir_core.diffbir.network_memory import plan_stage1
from ..bir_core.diffbir.piece import Piece, seen
from ..bir_core.diffbir.restoration_modules import RestorationModule
from ..bir_core.diffbir.settings import CHOICES
from ..bir_core.diffbir.stage1 import (
    SHORT_SIDE,
    restore_stage1,
    stage1_sizes,
)
from ..bir_core.diffbir.versions import VERSIONS, Task, official_order
from ..bir_core.errors import BIRError
from ..bir_core.images import (
    PadMode,
    attach_alpha,
    crop,
    from_channels_last,
    split_alpha,
    to_channels_last,
)
from ..bir_core.latents import PADDED_MULTIPLE
from ..bir_core.memory import USABLE, StagePlan
from ..bir_core.spandrel_plugin import as_published, restorer_in_strips
from ..bir_core.tiling import SMALLEST_TILE
from .automatic import AUTOMATIC, stage1_version
from .host import messages, services
from .host.node import Node
from .host.protocols import ControlNet, UpscaleModel
from .inputs import PICTURE_SIZE, AskedFor, PictureSize, PieceToTry
from .operations import asked_for_piece, finished, require_room_for


class BIRRestorationModule(Node):
    """Any restoration network as stage 1 of DiffBIR."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BIRRestorationModule",
            display_name="Restoration Module (DiffBIR Stage 1)",
            category="image/restoration",
            description=(
                "Removes the degradation before DiffBIR adds detail: resizes, pads and restores "
                "in the order of the chosen version, with any model of Load Upscale Model."
            ),
            search_aliases=[
                *("diffbir", "stage 1", "cleaner", "swinir", "bsrnet", "scunet", "denoise"),
                *("remove noise", "jpeg artifacts", "photo restoration", "face"),
            ],
            inputs=[
                io.UpscaleModel.Input(
                    "upscale_model",
                    tooltip="From Load Upscale Model. Official: SwinIR (v1, v2.1 and all faces), "
                    "BSRNet (v2 sr), SCUNet (v2 denoise); others work too.",
                ),
                io.Image.Input(
                    "image",
                    tooltip="The degraded picture, any size. A batch is restored picture by "
                    "picture; an alpha channel is kept, and resized.",
                ),
                io.Combo.Input(
                    "task",
                    options=list(get_args(Task)),
                    default="sr",
                    tooltip="With the version it says when the picture is enlarged. sr: "
                    "super-resolution, denoise: denoising, face: an aligned face.",
                ),
                io.Combo.Input(
                    "version",
                    options=[*VERSIONS, AUTOMATIC],
                    default=AUTOMATIC,
                    tooltip="automatic: that of the connected control net. v2 sr: the model sees "
                    "the original, its output is brought to size. v2 denoise: to the output "
                    "size, the model, then to the short side. All others: to the output size and "
                    "the short side, then the model.",
                ),
                io.Float.Input(
                    "upscale_by",
                    default=4.0,
                    min=0.25,
                    max=16.0,
                    step=0.25,
                    tooltip="Output side divided by input side; the enlargement of the model does "
                    "not change it.",
                ),
                io.Int.Input(
                    "short_side",
                    default=SHORT_SIDE,
                    min=0,
                    max=4096,
                    step=8,
                    optional=True,
                    advanced=True,
                    tooltip="Least pixels of the result's smaller side, which stage 2 needs; the "
                    "size output holds the size to return to. 0: no such bound.",
                ),
                io.Int.Input(
                    "tile",
                    default=0,
                    min=0,
                    max=8192,
                    step=SMALLEST_TILE,
                    optional=True,
                    advanced=True,
                    tooltip="Side in pixels of the pieces that the model restores, in its input. "
                    "0: the whole picture, or the largest tile that fits into the free memory. "
                    "Smaller tiles follow by themselves when the memory does not do.",
                ),
                io.Int.Input(
                    "overlap",
                    default=0,
                    min=0,
                    max=4096,
                    step=8,
                    optional=True,
                    advanced=True,
                    tooltip="Pixels that neighbouring tiles share and blend. 0: a quarter of the "
                    "tile.",
                ),
                io.Combo.Input(
                    "padding",
                    options=list(CHOICES["padding"]),
                    default="reflect",
                    optional=True,
                    advanced=True,
                    tooltip="What the model sees right of and below the picture up to a multiple "
                    "of 64 pixels. reflect: its mirror image; symmetric: the same with the last "
                    "pixel twice; black: as in the official code, which darkens the border.",
                ),
                io.ControlNet.Input(
                    "control_net",
                    optional=True,
                    tooltip="From Load DiffBIR ControlNet: says the version for automatic.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image",
                    tooltip="For DiffBIR Sampler or DiffBIR Conditioning, and the reference of the "
                    "colour fix. As in the official code it is not clamped to [0, 1].",
                ),
                PictureSize.Output(
                    display_name="size",
                    tooltip="The size asked for, and the image's alpha channel if it has one, for "
                    "DiffBIR Sampler or Crop to Picture.",
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="The version that was taken, and what is doubtful about it.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        upscale_model: UpscaleModel,
        image: Tensor,
        task: Task,
        version: str,
        upscale_by: float,
        short_side: int = SHORT_SIDE,
        tile: int = 0,
        overlap: int = 0,
        padding: PadMode = "reflect",
        control_net: ControlNet | None = None,
    ) -> io.NodeOutput:
        if upscale_model.input_channels != 3 or upscale_model.output_channels != 3:
            raise BIRError(
                "The restoration module should restore RGB pictures, but this model has "
                f"{upscale_model.input_channels} channels; choose another one."
            )
        colours, alpha = split_alpha(from_channels_last(image.float()))
        taken, report = stage1_version(version, control_net)
        order = official_order(task, taken)
        height, width = colours.shape[-2:]
        sizes = stage1_sizes(height, width, order, upscale_by, short_side)
        require_room_for(
            colours,
            upscale_by,
            lambda factor: stage1_sizes(height, width, order, factor, short_side).condition,
        )
        scale = upscale_model.scale
        # DiffIR and compact modules go through a picture of any size by themselves.
        in_strips = restorer_in_strips(upscale_model, services.raise_if_cancelled)
        module = RestorationModule(
            as_published(upscale_model) if in_strips is None else in_strips.restore,
            scale,
            upscale_model.architecture.name,
            upscale_model.model,
            None if in_strips is None else in_strips.memory,
        )
        model = services.ManagedModel(upscale_model.patcher)
        chosen = 0 if in_strips is not None else tile or None

        def plan(free: float) -> StagePlan:
            return plan_stage1(module, sizes.network, chosen, free, device_type=model.device.type)

        model.load(plan(PLENTY).work / USABLE)
        side = plan(USABLE * services.free_memory(model.device)).tile
        progress = services.batch_progress(len(colours), "tile" if in_strips is None else "")
        restored = [
            restore_stage1(
                colours[index : index + 1].to(model.device),
                module.restore,
                order,
                sizes,
                scale=scale,
                tile=side,
                overlap=overlap,
                padding=padding,
                callback=progress(index),
            )
            for index in range(len(colours))
        ]
        pictures = attach_alpha(torch.cat([services.to_output(one) for one in restored]), alpha)
        messages.say(report)
        return io.NodeOutput(
            services.to_output(to_channels_last(pictures)),
            AskedFor(*sizes.output, alpha),
            report,
            ui=ui.PreviewText(report),
        )


class BIRCrop(Node):
    """Takes a restored picture out of its padding, and to the size that was asked for."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BIRCrop",
            display_name="Crop to Picture",
            category="image/transform",
            description=(
                "Removes the padding of DiffBIR Conditioning (latent), then resizes to the size "
                "that the Restoration Module was asked for (size). Put the colour fix between the "
                "two, with a node for each."
            ),
            search_aliases=["diffbir", "unpad", "remove padding", "original size"],
            inputs=[
                io.Image.Input("image", tooltip="From the VAE decoder."),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="From DiffBIR Conditioning, or from the sampler that went on with it: "
                    "says what is padding.",
                ),
                PictureSize.Input(
                    "size",
                    optional=True,
                    tooltip="From the Restoration Module: the size in pixels to return to, and the "
                    "alpha channel of its image.",
                ),
                PieceToTry.Input(
                    "piece",
                    optional=True,
                    tooltip="From Try a Crop: the piece of this image that DiffBIR Sampler "
                    "restores of an image of its size, to compare the two.",
                ),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        latent: dict[str, Any] | None = None,
        size: AskedFor | None = None,
        piece: Piece | None = None,
    ) -> io.NodeOutput:
        if latent is None and size is None and piece is None:
            raise BIRError(
                "Crop to Picture should know a size, but neither latent nor size is connected; "
                "connect the latent of DiffBIR Conditioning or the size of the Restoration Module."
            )
        picture = from_channels_last(image.float())
        if latent is not None:
            picture = without_padding(picture, latent)
        if piece is not None:
            whole = (picture.shape[-2], picture.shape[-1])
            shown = seen(piece.tile(*whole), *whole)
            picture = shown.crop(picture)
            size = None if size is None else asked_for_piece(size, shown, whole)
        if size is not None:
            picture = finished(picture, size)  # the last step
        return io.NodeOutput(services.to_output(to_channels_last(picture)))


def without_padding(picture: Tensor, latent: dict[str, Any]) -> Tensor:
    """The part of a decoded picture (B, C, H, W) that DiffBIR Conditioning was given."""
    if PICTURE_SIZE not in latent:
        raise BIRError(
            "Crop to Picture should have a latent that comes from DiffBIR Conditioning, but this "
            "one does not know its picture's size; connect that node's latent."
        )
    height, width = latent[PICTURE_SIZE]
    padded = tuple(side + -side % PADDED_MULTIPLE for side in (height, width))
    found = tuple(picture.shape[-2:])
    if found != padded:
        raise BIRError(
            f"Crop to Picture should have the padded picture of {padded[0]} x {padded[1]} pixels "
            f"(height x width), but one of {found[0]} x {found[1]} came; connect the decoded "
            "picture before it is resized."
        )
    return crop(picture, height, width)
