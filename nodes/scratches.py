"""Damage of old photographs, found as a mask."""

from pathlib import Path

import torch
from comfy_api.latest import io
from torch import Tensor

from ..bir_core.estimate.scratches import (
    BUILTIN,
    GROW,
    THRESHOLD,
    damage_mask,
    find_damage,
    load_finder,
    shown_damage,
    working_bytes,
)
from ..bir_core.images import from_channels_last, split_alpha, to_channels_last
from ..bir_core.memory import USABLE
from ..bir_core.old_photo.filling import WIDEST
from ..bir_core.weights import builtin_model_path
from .host import fitting_files, services
from .host.node import Node
from .operations import fault_of_file, fingerprint_of_file

AUTOMATIC = "automatic"


def finder_file(model_name: str) -> Path:
    """The file of an entry in the list."""
    built_in = builtin_model_path(BUILTIN)
    if model_name == AUTOMATIC and built_in is not None:
        return built_in
    return services.detection_file(model_name)


class BIRFindScratches(Node):
    """Pictures to where they are damaged."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BIRFindScratches",
            display_name="Find Scratches (BIR)",
            category="image/restoration",
            description=(
                "Finds scratches, creases, dust, hairs and stains in scans of old photographs, as "
                "a mask for inpainting. The mask can be corrected by hand before it is filled."
            ),
            search_aliases=[
                *("scratch", "scratch detection", "find scratches", "remove scratches", "dust"),
                *("crease", "hair", "stain", "crack", "old photo", "photo restoration", "repair"),
                *("damage mask", "inpaint mask", "film damage"),
            ],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="Scans, any size from 1 pixel on, before anything else is done to "
                    "them. Each image of a batch is searched alone; alpha is ignored.",
                ),
                io.Float.Input(
                    "threshold",
                    default=THRESHOLD,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="How likely a pixel must be damaged, 0 to 1. Lower finds more, also of "
                    "what is no damage: wires, hair, window frames.",
                ),
                io.Int.Input(
                    "grow",
                    default=GROW,
                    min=0,
                    max=64,
                    tooltip="Pixels around the damage that are taken with it, so that its soft "
                    "edges are filled too.",
                ),
                io.Combo.Input(
                    "model_name",
                    options=[AUTOMATIC, *fitting_files.damage_finders()],
                    default=AUTOMATIC,
                    optional=True,
                    advanced=True,
                    tooltip="A file of models/detection. automatic: the one that comes with the "
                    "pack.",
                ),
                io.Int.Input(
                    "widest",
                    default=0,
                    min=0,
                    max=1024,
                    optional=True,
                    advanced=True,
                    tooltip="Leave out damage that is wider than so many pixels, with those around "
                    f"it: what was there does not follow from the surroundings. {WIDEST} for the "
                    "built-in inpainting. 0: take all.",
                ),
            ],
            outputs=[
                io.Mask.Output(
                    display_name="mask",
                    tooltip="1 where the image is damaged, else 0: for any inpainting.",
                ),
                io.Image.Output(
                    display_name="preview", tooltip="The image with the damage in red, to look at."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        threshold: float,
        grow: int,
        model_name: str = AUTOMATIC,
        widest: int = 0,
    ) -> io.NodeOutput:
        pictures, _ = split_alpha(from_channels_last(image.float()))
        model = services.manage(load_finder(finder_file(model_name)))
        model.load(working_bytes(pictures.shape[-2], pictures.shape[-1]) / USABLE)
        progress = services.batch_progress(len(pictures), "tile")
        masks, previews = [], []
        for index, picture in enumerate(pictures):
            one = picture[None].to(model.device)
            probability = find_damage(one, model.network, callback=progress(index))
            mask = damage_mask(probability, threshold, grow, widest or None)
            masks.append(services.to_output(mask[:, 0]))
            previews.append(services.to_output(to_channels_last(shown_damage(one, mask))))
        return io.NodeOutput(torch.cat(masks), torch.cat(previews))

    @classmethod
    def validate_inputs(cls, model_name: str | None = AUTOMATIC) -> bool | str:
        return fault_of_file(model_name, finder_file, "damage_finder")

    @classmethod
    def fingerprint_inputs(cls, model_name: str | None = AUTOMATIC, **_: object) -> object:
        return fingerprint_of_file(model_name, finder_file)
