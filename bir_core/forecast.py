"""What a restoration will take, in words: for the node that plans."""

from dataclasses import dataclass

import torch

from .diffbir.effort import Effort, sampling_effort
from .diffbir.method import DiffBIROptions
from .diffbir.stage1 import stage1_sizes
from .diffbir.versions import VERSIONS, Task, official_order
from .memory import GIGABYTE, MemoryPlan, StagePlan
from .methods import METHODS, method_of_model

TASK: Task = "sr"
DIFFBIR = {f"DiffBIR {version}": version for version in VERSIONS}


@dataclass(frozen=True)
class Forecast:
    """What a run needs.

    Attributes:
        title: what is planned.
        plan: its memory.
        effort: of the sampling; None for a single network.
    """

    title: str
    plan: MemoryPlan
    effort: Effort | None

    def seconds(self, tile_step: float) -> float | None:
        """How long the sampling takes by the seconds of one step of one tile; None where there is
        no sampling, or nothing was measured (0)."""
        if self.effort is None or not tile_step:
            return None
        return self.effort.tile_steps * tile_step

    def text(self, tile_step: float = 0.0) -> str:
        """All of it, a line for each stage; see `seconds`."""
        plan = self.plan
        lines = [
            self.title,
            plan.verdict("memory of the device"),
            *(_line(stage) for stage in plan.stages),
        ]
        if self.effort is not None:
            lines += [_sampling(self.effort), _time(self.seconds(tile_step))]
        else:
            lines.append("time: not known beforehand; the node's progress bar tells it")
        return "\n".join(lines)


def _line(stage: StagePlan) -> str:
    waiting = f", and {stage.parked / GIGABYTE:.2f} GB of the host" if stage.parked else ""
    return f"{stage.name}: {stage.pieces}, {stage.memory / GIGABYTE:.2f} GB{waiting}"


def _sampling(effort: Effort) -> str:
    tiles = "1 tile" if effort.tiles == 1 else f"{effort.tiles} tiles"
    prompts = " with and without the negative prompt" if effort.prompts == 2 else ""
    return f"work: {tiles} x {effort.steps} steps{prompts} = {effort.tile_steps} steps of a tile"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return (
            "time: not known until a step is measured; sample a picture of one tile, and put the "
            "seconds of a step, which the log shows, into seconds_per_step"
        )
    minutes, rest = divmod(round(seconds), 60)
    return f"time: {minutes} min {rest} s for the sampling, without stage 1 and VAE"


def forecast(
    what: str,
    height: int,
    width: int,
    *,
    device: torch.device,
    memory: int,
    dtype: str = "float16",
    upscale: float = 4.0,
    tile: int = 512,
    steps: int = 0,
) -> Forecast:
    """What the restoration of a picture needs.

    Args:
        what: a key of `DIFFBIR`, planned with networks of the official sizes; or the name of a
            built-in model, or the file of one that restores by itself.
        height, width: of the picture that comes in, in pixels.
        device: where the networks compute.
        memory: its bytes that may be used.
        dtype: a name of `options.DTYPES`, for UNet and IRControlNet, or the single network.
        upscale: sides of the result by those of the picture; a single network has its own.
        tile: side in pixels of the tiles of the sampling, 0 for the whole picture.
        steps: of the sampler; 0 takes the authors' number.

    Raises:
        BIRError: a file that cannot be planned for, or impossible settings.
    """
    if what not in DIFFBIR:
        method = METHODS[method_of_model(what)]
        plan_image, _ = method.plan(method.options(model=what, dtype=dtype), device, memory)
        return Forecast(*plan_image(height, width), None)
    changed = {"tile": tile, **({"steps": steps} if steps else {})}
    options = DiffBIROptions(
        version=DIFFBIR[what],
        task=TASK,
        upscale=upscale,
        settings=changed,
        # The networks of the other stages wait on the host, which on a CPU is the same memory.
        offload=device.type != "cpu",
        dtype=dtype,
    )
    plan_image, _ = METHODS["diffbir"].plan(options, device, memory)
    title, plan = plan_image(height, width)
    settings = options.settings_of(DIFFBIR[what])
    order = official_order(TASK, DIFFBIR[what])
    sizes = stage1_sizes(height, width, order, upscale, settings.short_side)
    return Forecast(title, plan, sampling_effort(settings, plan, sizes.condition))
