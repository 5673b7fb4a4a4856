"""The colours of the stage-1 image on the restored one."""

from comfy_api.latest import io
from torch import Tensor

from ..bir_core.diffbir.masks import Painted
from ..bir_core.diffbir.settings import CHOICES
from ..bir_core.images import (
    from_channels_last,
    resize,
    to_channels_last,
)
from .host import services
from .host.node import Node
from .inputs import blending_input, clamp_input, mask_input, painted_input
from .operations import fix_colors, mask_of_places


class BIRColorFix(Node):
    """An image and a reference to the image with the reference's colours."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BIRColorFix",
            display_name="Fix Colors (BIR)",
            category="image/restoration",
            description=(
                "Gives a restored image the colours of the image it was restored from. Use it "
                "once, on the whole image, after the VAE."
            ),
            search_aliases=["color match", "wavelet", "adain", "color transfer", "colour fix"],
            inputs=[
                io.Image.Input("image", tooltip="The restored image, with the detail to keep."),
                io.Image.Input(
                    "reference",
                    tooltip="The image with the right colours: what stage 1 gave. One for the "
                    "whole batch, or one per image.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(CHOICES["color_fix"]),
                    default="wavelet",
                    tooltip="wavelet: everything coarser than about 60 pixels comes from the "
                    "reference. adain: mean and contrast of each colour channel are made those of "
                    "the reference. none: colours stay, but a grey picture stays grey.",
                ),
                io.Boolean.Input(
                    "resize_reference",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip="A reference of another size is resized to the image. Off: it is an "
                    "error.",
                ),
                clamp_input("Crop to Picture resizes it"),
                blending_input("reference"),
                mask_input(),
                painted_input(),
            ],
            outputs=[io.Image.Output(tooltip="The image with fixed colours.")],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        reference: Tensor,
        method: str,
        resize_reference: bool = True,
        clamp: bool = True,
        blending: float = 0.0,
        mask: Tensor | None = None,
        painted: Painted = "grey",
    ) -> io.NodeOutput:
        content, style = from_channels_last(image.float()), from_channels_last(reference.float())
        if resize_reference and style.shape[-2:] != content.shape[-2:]:
            style = resize(style, content.shape[-2], content.shape[-1])
        places = mask_of_places(mask, painted, len(content), *content.shape[-2:])
        fixed = fix_colors(content, style, method, blending, places)
        fixed = fixed.clamp(0, 1) if clamp else fixed
        return io.NodeOutput(services.to_output(to_channels_last(fixed)))
