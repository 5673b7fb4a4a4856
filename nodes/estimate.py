"""What is wrong with a picture."""

import json

from comfy_api.latest import io, ui
from torch import Tensor

from ..bir_core.estimate import Estimate, estimate
from ..bir_core.estimate.estimating import load_estimator
from ..bir_core.estimate.words import in_words
from ..bir_core.images import from_channels_last, split_alpha
from .host import services
from .host.node import Node

# Of a picture without JPEG.
NO_JPEG = 100.0
NUMBERS = {
    "blur_sigma": "Sigma of a Gaussian that blurs as much, in pixels of the picture before it was "
    "enlarged.",
    "noise_sigma": "Standard deviation of the noise in steps of 255, of the picture before it was "
    "enlarged.",
    "jpeg_quality": f"Quality of JPEG, 1 to 100; {NO_JPEG:g} where there is none to see.",
    "enlargement": "How many times larger the picture is than its detail, from 1 on.",
    "grey": "Share of the pixels without colour: 1 is a grey picture.",
    "contrast": "Range of brightness, 0 to 1: a faded picture has little.",
}


class BIREstimate(Node):
    """An image to what is wrong with it, in words and numbers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BIREstimate",
            display_name="Estimate Damage (BIR)",
            category="image/restoration",
            description=(
                "Says what is wrong with an image: blur, noise, JPEG, enlargement, lost colours "
                "and faded contrast, in words and numbers, each with what it may be off by."
            ),
            search_aliases=[
                *("estimate", "what is wrong", "quality", "noise level", "blur level", "inspect"),
                *("jpeg quality", "detect blur", "detect noise", "analyze", "diagnose", "faded"),
            ],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="Any size. Each of a batch is looked at alone; an alpha channel is "
                    "left out.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="A line for each kind of damage."),
                io.String.Output(
                    display_name="numbers",
                    tooltip="All numbers with their spreads, as JSON: a list with one entry for "
                    "each image.",
                ),
                *(
                    io.Float.Output(display_name=name, tooltip=f"{meaning} Of a batch the mean.")
                    for name, meaning in NUMBERS.items()
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, image: Tensor) -> io.NodeOutput:
        colours, _ = split_alpha(from_channels_last(image.float().cpu()))
        network = load_estimator()
        progress = services.batch_progress(len(colours))
        found = []
        for index, one in enumerate(colours):
            found.append(estimate(one[None].clamp(0, 1), network))
            progress(index)(1, 1)
        report = _report(found)
        return io.NodeOutput(
            report,
            json.dumps([each.numbers() for each in found], indent=2),
            *(_mean(found, name) for name in NUMBERS),
            ui=ui.PreviewText(report),
        )


def _report(found: list[Estimate]) -> str:
    texts = ["\n".join(in_words(each)) for each in found]
    if len(texts) == 1:
        return texts[0]
    return "\n\n".join(f"image {index}:\n{text}" for index, text in enumerate(texts))


def _mean(found: list[Estimate], name: str) -> float:
    values = [getattr(each, name) for each in found]
    return sum(NO_JPEG if each is None else each.value for each in values) / len(values)
