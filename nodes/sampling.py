"""DiffBIR's schedule and guidance scale for the stock custom samplers."""

from comfy_api.latest import io

from ..bir_core.diffusion.schedules import TRAINED_STEPS, model_sigmas
from .host import sampling as host_sampling
from .host.node import Node
from .host.protocols import Conditioning, Model


class DiffBIRScheduler(Node):
    """The exact spaced schedule of the official code."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffBIRScheduler",
            display_name="DiffBIR Scheduler (Spaced)",
            category="model/sampling/schedulers",
            description=(
                "The noise levels of DiffBIR's spaced sampler: evenly spaced trained timesteps "
                "with both ends. With the stock sampler ddpm it is the official sampler."
            ),
            search_aliases=["diffbir", "spaced", "sigmas", "ddpm"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="Set for its control net: the model that DiffBIR Conditioning gives.",
                ),
                io.Int.Input(
                    "steps",
                    default=50,
                    min=1,
                    max=TRAINED_STEPS,
                    tooltip="Number of steps. Official: 50 with ddpm, 10 with dpmpp_3m_sde.",
                ),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="Part of the schedule, 0 to 1: below 1 it starts later, at less noise, "
                    "and still takes all steps.",
                ),
            ],
            outputs=[io.Sigmas.Output()],
        )

    @classmethod
    def execute(cls, model: Model, steps: int, denoise: float = 1.0) -> io.NodeOutput:
        return io.NodeOutput(
            model_sigmas("spaced", host_sampling.trained_sigmas(model), steps, denoise)
        )


class DiffBIRCFGGuider(Node):
    """Classifier-free guidance whose scale can grow while the noise falls."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffBIRCFGGuider",
            display_name="DiffBIR CFG Guider",
            category="model/sampling/guiders",
            description=(
                "Follows the prompt with a scale that grows along the sampling (DiffBIR's "
                "rescale_cfg): structure from the image first, then detail from the prompt."
            ),
            search_aliases=["diffbir", "rescale cfg", "growing cfg", "guider"],
            inputs=[
                io.Model.Input("model", tooltip="The base model."),
                io.Conditioning.Input("positive", tooltip="From DiffBIR Conditioning."),
                io.Conditioning.Input("negative", tooltip="From DiffBIR Conditioning."),
                io.Float.Input(
                    "cfg",
                    default=8.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="Guidance scale. 1: without the negative prompt. Official: 8 for v2.1, "
                    "4 for v2.",
                ),
                io.Boolean.Input(
                    "rescale",
                    default=False,
                    tooltip="On: the scale grows from 1 at the first timestep to 1 + cfg at the "
                    "last; a cfg up to 1 stays as it is. Off: constant.",
                ),
            ],
            outputs=[io.Guider.Output()],
        )

    @classmethod
    def execute(
        cls,
        model: Model,
        positive: Conditioning,
        negative: Conditioning,
        cfg: float,
        rescale: bool,
    ) -> io.NodeOutput:
        return io.NodeOutput(
            host_sampling.growing_cfg_guider(model, positive, negative, cfg, rescale)
        )
