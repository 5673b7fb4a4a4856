"""What is wrong with a picture, and what to do about it."""

import json

from comfy_api.latest import io, ui
from torch import Tensor

from ..bir_core.choosing import Choice, choose
from ..bir_core.choosing.batches import of_batch
from ..bir_core.choosing.rule import GENTLE
from ..bir_core.diffbir.fidelity import of_fidelity
from ..bir_core.estimate import Estimate, estimate
from ..bir_core.estimate.estimating import load_estimator
from ..bir_core.estimate.words import in_words
from ..bir_core.images import from_channels_last, split_alpha
from ..bir_core.weights import builtin_model_path
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
                "and faded contrast, in words and numbers, each with what it may be off by; and "
                "what to do about it."
            ),
            search_aliases=[
                *("estimate", "what is wrong", "quality", "noise level", "blur level", "inspect"),
                *("automatic", "auto", "which model"),
                *("jpeg quality", "detect blur", "detect noise", "analyze", "diagnose", "faded"),
            ],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="Any size. Each of a batch is looked at alone; an alpha channel is "
                    "left out.",
                ),
                io.Float.Input(
                    "scale",
                    default=0.0,
                    min=0.0,
                    max=8.0,
                    step=0.25,
                    optional=True,
                    tooltip="Sides of the restored image by those of this one, from 1 on, for the "
                    "choice. 0: chosen as well, 1 for all but small images.",
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
                *_choice_outputs(),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, image: Tensor, scale: float = 0.0) -> io.NodeOutput:
        colours, _ = split_alpha(from_channels_last(image.float().cpu()))
        network = load_estimator()
        progress = services.batch_progress(len(colours))
        found = []
        for index, one in enumerate(colours):
            found.append(estimate(one[None].clamp(0, 1), network))
            progress(index)(1, 1)
        choice = choose(of_batch(found), *colours.shape[-2:], scale=scale or None)
        report = _report(found)
        words = "\n".join(choice.reasons)
        return io.NodeOutput(
            report,
            json.dumps([each.numbers() for each in found], indent=2),
            *(_mean(found, name) for name in NUMBERS),
            *_chosen(choice, words),
            ui=ui.PreviewText(f"{report}\n\n{words}"),
        )


def _choice_outputs() -> list[io.Output]:
    """Behind the numbers; of a batch one choice, by the median of each number."""
    return [
        io.String.Output(
            display_name="choice",
            tooltip="What to do, and why. Of a batch one choice, by the median of each number.",
        ),
        io.Boolean.Output(
            display_name="restore", tooltip="False where the image is best left as it is."
        ),
        io.Combo.Output(
            display_name="model_name",
            tooltip="The built-in model, for Load Upscale Model and Restore Photo.",
        ),
        io.Float.Output(
            display_name="enlarge_by", tooltip="Sides of the result by those of the image."
        ),
        io.Float.Output(
            display_name="reduce_to",
            tooltip="Share of its sides to which the image is reduced first, for Upscale Image By; "
            "1 for not.",
        ),
        io.Boolean.Output(
            display_name="clean_first",
            tooltip="Whether another model cleans before the one that enlarges.",
        ),
        io.Combo.Output(
            display_name="cleaning_model",
            tooltip="That model; without need for one the gentlest, which hardly changes anything.",
        ),
        io.Combo.Output(display_name="task", tooltip="Of DiffBIR: sr or denoise."),
        io.Float.Output(
            display_name="fidelity", tooltip="Of Restore Photo; it stands for the next three."
        ),
        io.Float.Output(display_name="strength", tooltip="Of DiffBIR Sampler."),
        io.Float.Output(
            display_name="guidance", tooltip="Of DiffBIR Sampler, with guidance_per 512x512."
        ),
        io.Float.Output(display_name="blending", tooltip="Of DiffBIR Sampler."),
        io.Int.Output(
            display_name="noise_aug",
            tooltip="Of DiffBIR Sampler and DiffBIR Conditioning, for version 2.1.",
        ),
    ]


def _chosen(choice: Choice, words: str) -> tuple[object, ...]:
    """The values of `_choice_outputs`. Where nothing is to be done they are the gentlest."""
    diffbir = choice.diffbir
    fidelity = of_fidelity(diffbir.fidelity)
    return (
        words,
        not choice.is_nothing,
        _file(choice.model or GENTLE),
        choice.scale,
        1 / choice.reduce,
        choice.clean is not None,
        _file(choice.clean or GENTLE),
        diffbir.task,
        diffbir.fidelity,
        fidelity.strength,
        fidelity.guidance,
        fidelity.blending,
        diffbir.noise_aug,
    )


def _file(name: str) -> str:
    """As the lists of models call a built-in one."""
    path = builtin_model_path(name)
    assert path is not None  # the rule names built-in models
    return path.name


def _report(found: list[Estimate]) -> str:
    texts = ["\n".join(in_words(each)) for each in found]
    if len(texts) == 1:
        return texts[0]
    return "\n\n".join(f"image {index}:\n{text}" for index, text in enumerate(texts))


def _mean(found: list[Estimate], name: str) -> float:
    values = [getattr(each, name) for each in found]
    return sum(NO_JPEG if each is None else each.value for each in values) / len(values)
