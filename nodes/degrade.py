"""Low-quality pictures made from good ones, to try a restoration on and to measure it by."""

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..bir_core.degradations import get_preset, preset_names
from ..bir_core.degradations.pictures import degrade_picture, draws_as_json
from ..bir_core.images import attach_alpha, from_channels_last, split_alpha, to_channels_last
from ..bir_core.seeds import image_seed
from .host import services
from .host.node import Node
from .inputs import seed_input


class BIRDegrade(Node):
    """An image to a damaged one, by a named degradation."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BIRDegrade",
            display_name="Degrade Image (BIR)",
            category="image/restoration",
            description=(
                "Damages a good image as trainings and tests of restoration do: blur, reduction, "
                "noise and JPEG, or holes. Restore the result and compare it with the original."
            ),
            search_aliases=[
                *("degrade", "degradation", "damage", "add noise", "make blurry", "low quality"),
                *("jpeg artifacts", "test image", "downscale", "realesrgan", "old photo"),
                *("motion blur", "out of focus", "film grain"),
            ],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="The good image, any size. Each image of a batch has a damage of its "
                    "own; an alpha channel is kept.",
                ),
                io.Combo.Input(
                    "preset",
                    options=list(preset_names()),
                    default="simple_x4",
                    tooltip="What is done. simple: some blur, noise and JPEG; realesrgan: twice "
                    "over, in strong ranges; clean: reduction alone; x4, x2, x1: how many times "
                    "smaller. enlarged: little or much, diffbir, codeformer: strong, varying: not "
                    "alike everywhere; all keep the size. motion_blur, defocus, film_grain: one "
                    "damage. masks: holes. old_photo: scratches, dust, creases and stains.",
                ),
                seed_input(
                    "Of all that is drawn: image i of a batch takes seed + i. The same "
                    "seed gives the same damage, as bir degrade does."
                ),
                io.Int.Input(
                    "scale",
                    default=0,
                    min=0,
                    max=64,
                    optional=True,
                    advanced=True,
                    tooltip="How many times smaller, in the place of the preset's own number. For "
                    "presets that keep the size it is that of a picture in between. 0: the "
                    "preset's.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image",
                    tooltip="The damaged image. With a masks preset the whole image, in the size "
                    "of that test.",
                ),
                io.Image.Output(
                    display_name="original",
                    tooltip="What a restoration of it is compared with: the good image, cut to a "
                    "multiple of the scale, and sharpened where the preset says so.",
                ),
                io.Mask.Output(
                    display_name="hole",
                    tooltip="1 in the hole that a masks preset cuts, or where an old photograph is "
                    "damaged; empty for the others.",
                ),
                io.String.Output(
                    display_name="drawn", tooltip="Every value that was drawn, as JSON."
                ),
            ],
        )

    @classmethod
    def execute(cls, image: Tensor, preset: str, seed: int, scale: int = 0) -> io.NodeOutput:
        colours, alpha = split_alpha(from_channels_last(image.float()))
        degradation = get_preset(preset)
        progress = services.batch_progress(len(colours))
        images, originals, masks, records = [], [], [], []
        for index in range(len(colours)):
            one = slice(index, index + 1)
            seed_of_image = image_seed(seed, index)
            degraded = degrade_picture(
                colours[one].cpu(),
                None if alpha is None else alpha[one].cpu(),
                degradation,
                seed=seed_of_image,
                scale=scale or None,
            )
            picture = degraded.image
            images.append(attach_alpha(picture, degraded.alpha))
            originals.append(degraded.original)
            masks.append(picture[:, :1] * 0 if degraded.mask is None else degraded.mask)
            records.append({"seed": seed_of_image, "draws": degraded.draws})
            progress(index)(1, 1)
        drawn = draws_as_json({"preset": preset, "scale": scale or None, "images": records})
        return io.NodeOutput(
            services.to_output(to_channels_last(torch.cat(images))),
            services.to_output(to_channels_last(torch.cat(originals))),
            services.to_output(torch.cat(masks)[:, 0]),
            drawn,
            ui=ui.PreviewText(drawn),
        )
