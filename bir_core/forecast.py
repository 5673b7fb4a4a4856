"""What a restoration will take before it is begun: its plan with the result, and all in words."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from .diffbir.effort import Effort, sampling_effort
from .diffbir.face_options import UNALIGNED_FACE
from .diffbir.method import OF_FACE, DiffBIROptions
from .diffbir.versions import VERSIONS
from .faces.alignment import FACE_SIZE
from .memory import CPU, GIGABYTE, MemoryPlan, StagePlan, free_memory, picture_bytes
from .methods import METHODS, Method, method_of_model
from .pictures.files import WRITING_PICTURES

DIFFBIR = {f"DiffBIR {version}": version for version in VERSIONS}


@dataclass(frozen=True)
class Forecast:
    """What a run needs.

    Attributes:
        title: what is planned.
        plan: its memory.
        effort: of the sampling, without faces in whole photos; None for a single network.
        of_face: of the sampling of each of these; None for other tasks.
    """

    title: str
    plan: MemoryPlan
    effort: Effort | None = None
    of_face: Effort | None = None

    def seconds(self, tile_step: float) -> float | None:
        """How long the sampling of `effort` takes by the seconds of one step of one tile; None
        where there is no sampling, or nothing was measured (0)."""
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
            *([plan.price_of_file] if plan.filed else []),
        ]
        if self.effort is None:
            lines.append("time: not known beforehand; the node's progress bar tells it")
            return "\n".join(lines)
        lines.append(f"work: {_sampling(self.effort)}")
        if self.of_face is not None:
            lines.append(f"each face: {_sampling(self.of_face)}")
        return "\n".join([*lines, self._time(tile_step)])

    def _time(self, tile_step: float) -> str:
        seconds = self.seconds(tile_step)
        if seconds is None:
            return (
                "time: not known until a step is measured; sample a picture of one tile, and put "
                "the seconds of a step, which the log shows, into seconds_per_step"
            )
        each = ""
        if self.of_face is not None:
            each = f", {_minutes(self.of_face.tile_steps * tile_step)} for each face"
        return f"time: {_minutes(seconds)} for the sampling{each}, without stage 1 and VAE"


def plan_run(
    method: Method[Any],
    device: torch.device,
    memory: int,
    height: int,
    width: int,
    options: Any,
) -> tuple[str, MemoryPlan]:
    """The plan of a picture's restoration with the copies of the result while it is written, and a
    title.

    Args:
        device: where the networks compute.
        memory: its bytes that may be used.
        height, width: of the picture that comes in, in pixels.
        options: of the method.

    Raises:
        BIRError: as for `Method.plan`.
    """
    plan_image, scale = method.plan(options, device, memory)
    title, plan = plan_image(height, width)
    taken = int(picture_bytes(int(height * scale), int(width * scale), WRITING_PICTURES))
    if device.type == "cpu":
        return title, replace(plan, stages=(*plan.stages, StagePlan("writing", 0, 0, taken)))
    stages = (*plan.stages, StagePlan("writing", 0, 0, 0, parked=taken))
    return title, replace(plan, stages=stages, host_memory=free_memory(CPU))


def _line(stage: StagePlan) -> str:
    waiting = f", and {stage.parked / GIGABYTE:.2f} GB of the host" if stage.parked else ""
    waiting += f", and a file of {stage.filed / GIGABYTE:.2f} GB" if stage.filed else ""
    return f"{stage.name}: {stage.pieces}, {stage.memory / GIGABYTE:.2f} GB{waiting}"


def _sampling(effort: Effort) -> str:
    tiles = "1 tile" if effort.tiles == 1 else f"{effort.tiles} tiles"
    prompts = " with and without the negative prompt" if effort.prompts == 2 else ""
    return f"{tiles} x {effort.steps} steps{prompts} = {effort.tile_steps} steps of a tile"


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


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
    task: str = "sr",
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
        task: of DiffBIR, one of `arguments.TASKS`.

    Raises:
        BIRError: a file that cannot be planned for, impossible settings, or a version without the
            task.
    """
    if what not in DIFFBIR:
        method = METHODS[method_of_model(what)]
        of_model = method.options(model=what, dtype=dtype)
        return Forecast(*plan_run(method, device, memory, height, width, of_model))
    changed = {"tile": tile, **({"steps": steps} if steps else {})}
    options = DiffBIROptions(
        version=DIFFBIR[what],
        task=task,
        upscale=upscale,
        settings=changed,
        # The networks of the other stages wait on the host, which on a CPU is the same memory.
        offload=device.type != "cpu",
        dtype=dtype,
    )
    title, plan = plan_run(METHODS["diffbir"], device, memory, height, width, options)
    settings = options.settings_of(DIFFBIR[what])
    output = (int(height * upscale), int(width * upscale))
    effort, of_face = sampling_effort(settings, plan.stage("sampling").tile, output), None
    if task == UNALIGNED_FACE:
        face_tile = plan.stage(f"{OF_FACE}sampling").tile
        of_face = sampling_effort(settings, face_tile, (FACE_SIZE, FACE_SIZE))
    return Forecast(title, plan, effort, of_face)
