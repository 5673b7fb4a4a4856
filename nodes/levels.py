"""Fading and casts of old photographs, undone."""

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..bir_core.images import (
    attach_alpha,
    extend_opaque,
    from_channels_last,
    split_alpha,
    to_channels_last,
)
from ..bir_core.old_photo import find_levels
from .host import services
from .host.node import Node
from .operations import masks_for


class BIRUndoFading(Node):
    """Pictures of prints to the pictures before they faded."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BIRUndoFading",
            display_name="Undo Fading (BIR)",
            category="image/restoration",
            description=(
                "Finds how far an old photograph faded, which cast it has and whether it is toned, "
                "and undoes that, cautiously. Pictures that are as they were stay as they are."
            ),
            search_aliases=[
                *("fading", "faded", "levels", "auto levels", "contrast", "white balance"),
                *("color cast", "colour cast", "sepia", "tone", "old photo", "photo restoration"),
            ],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="Any size. Each image of a batch is looked at alone; an alpha channel "
                    "is kept.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How much of it is undone: 1 all that was found, 0 nothing.",
                ),
                io.Boolean.Input(
                    "keep_tone",
                    default=False,
                    tooltip="Leave brown and other toned prints in their colour.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where nothing is looked at, such as scratches, which are brighter or "
                    "darker than anything in the picture.",
                ),
            ],
            outputs=[
                io.Image.Output(tooltip="The picture before it faded."),
                io.String.Output(
                    display_name="report",
                    tooltip="What was undone, with the numbers that put it back.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, image: Tensor, strength: float, keep_tone: bool, mask: Tensor | None = None
    ) -> io.NodeOutput:
        colours, alpha = split_alpha(from_channels_last(image.float()))
        colours = extend_opaque(colours, alpha)
        masks = masks_for(mask, len(colours), *colours.shape[-2:])
        results, lines = [], []
        for index, one in enumerate(torch.split(colours.clamp(0, 1), 1)):
            damage = None if masks is None else masks[index : index + 1].round()
            levels = find_levels(one, damage, keep_tone=keep_tone)
            results.append(torch.lerp(one, levels.undone(one), strength))
            lines.append(levels.words)
        report = "\n".join(lines)
        pictures = attach_alpha(torch.cat(results), alpha)
        return io.NodeOutput(
            services.to_output(to_channels_last(pictures)), report, ui=ui.PreviewText(report)
        )
