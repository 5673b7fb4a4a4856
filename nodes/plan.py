"""What a restoration will take, before it is begun."""

from comfy_api.latest import io, ui
from torch import Tensor

from ..bir_core.command_line.options import DTYPES
from ..bir_core.diffbir.arguments import TASKS
from ..bir_core.forecast import DIFFBIR, forecast
from ..bir_core.images import from_channels_last
from ..bir_core.memory import GIGABYTE
from ..bir_core.weights import BUILTIN_NAMES
from .host import services
from .host.node import Node

NO_TIME = (
    "Plan Restoration (BIR) should give the seconds of DiffBIR's sampling, but no step was "
    "measured; set seconds_per_step."
)


class BIRPlan(Node):
    """A size and a method to memory, tiles, steps, and time where a step was measured."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BIRPlan",
            display_name="Plan Restoration (BIR)",
            category="image/restoration",
            description=(
                "Says what a restoration needs before it is begun: memory and pieces of each "
                "stage, tiles and steps, and the time once a step was measured."
            ),
            search_aliases=[
                *("plan", "memory", "vram", "out of memory", "how long", "time", "estimate"),
                "tiles",
            ],
            inputs=[
                io.Combo.Input(
                    "method",
                    options=[*reversed(DIFFBIR), *BUILTIN_NAMES],
                    tooltip="DiffBIR with networks of the official sizes, or a built-in model.",
                ),
                io.Int.Input(
                    "width",
                    default=1024,
                    min=1,
                    max=65536,
                    tooltip="Of the picture that comes in, in pixels; not used with an image.",
                ),
                io.Int.Input(
                    "height",
                    default=768,
                    min=1,
                    max=65536,
                    tooltip="Of the picture that comes in, in pixels; not used with an image.",
                ),
                io.Float.Input(
                    "upscale_by",
                    default=4.0,
                    min=0.25,
                    max=16.0,
                    step=0.25,
                    tooltip="Output side by input side, of DiffBIR; a built-in model has its own.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The picture that comes in, in the place of width and height.",
                ),
                io.Int.Input(
                    "tile_size",
                    default=512,
                    min=0,
                    max=4096,
                    step=64,
                    optional=True,
                    advanced=True,
                    tooltip="Side of the tiles of DiffBIR's sampling, which overlap by half. 0: "
                    "the whole picture at once.",
                ),
                io.Int.Input(
                    "steps",
                    default=0,
                    min=0,
                    max=1000,
                    optional=True,
                    advanced=True,
                    tooltip="Of DiffBIR's sampling. 0: the authors' number, 10 for v2.1, 50 for v1 "
                    "and v2.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(DTYPES),
                    default="float16",
                    optional=True,
                    advanced=True,
                    tooltip="Numbers of the weights and of the computation: of UNet and "
                    "IRControlNet, or of a built-in model.",
                ),
                io.Float.Input(
                    "memory",
                    default=0.0,
                    min=0.0,
                    max=4096.0,
                    step=0.5,
                    optional=True,
                    advanced=True,
                    tooltip="Of the device in GB, to plan for another one. 0: all of this one's.",
                ),
                io.Float.Input(
                    "seconds_per_step",
                    default=0.0,
                    min=0.0,
                    max=10000.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="Measured: a step of one tile, as the log shows it for a picture that "
                    "is one tile. 0: no time is told.",
                ),
                io.Combo.Input(
                    "task",
                    options=list(TASKS),
                    default="sr",
                    optional=True,
                    advanced=True,
                    tooltip="Of DiffBIR. sr: enlarge; denoise: clean; face: an aligned face; "
                    "unaligned_face: a whole photo as in sr, and each face on its own, with v2 and "
                    "v2.1.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="All of it, as text."),
                io.Boolean.Output(display_name="fits", tooltip="Whether the memory does."),
                io.Float.Output(display_name="needed", tooltip="Memory of the device in GB."),
                io.Int.Output(
                    display_name="tiles",
                    tooltip="Of the sampling, without the faces of unaligned_face; 0 for a "
                    "built-in model.",
                ),
                io.Int.Output(
                    display_name="steps", tooltip="Of each tile; 0 for a built-in model."
                ),
                io.Float.Output(
                    display_name="seconds",
                    tooltip="Of the sampling of these tiles, if seconds_per_step is set.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        method: str,
        width: int,
        height: int,
        upscale_by: float,
        image: Tensor | None = None,
        tile_size: int = 512,
        steps: int = 0,
        precision: str = "float16",
        memory: float = 0.0,
        seconds_per_step: float = 0.0,
        task: str = "sr",
    ) -> io.NodeOutput:
        if image is not None:
            height, width = from_channels_last(image).shape[-2:]
        device = services.computing_device()
        found = forecast(
            method,
            height,
            width,
            device=device,
            memory=int(memory * GIGABYTE or services.total_memory(device)),
            dtype=precision,
            upscale=upscale_by,
            tile=tile_size,
            steps=steps,
            task=task,
        )
        report, seconds = found.text(seconds_per_step), found.seconds(seconds_per_step)
        return io.NodeOutput(
            report,
            found.plan.fits,
            found.plan.needed / GIGABYTE,
            found.effort.tiles if found.effort else 0,
            found.effort.steps if found.effort else 0,
            services.blocked(NO_TIME) if seconds is None else seconds,
            ui=ui.PreviewText(report),
        )
