"""What is decided before a picture is worked on."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..memory import CPU, MemoryPlan, picture_bytes, require_room
from .memory_plan import least_decoding_bytes
from .settings import DiffBIRSettings
from .stage1 import Stage1Sizes, stage1_sizes
from .versions import Order, Task


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of both stages.

    Attributes:
        height, width: of the pictures that come in, in pixels.
        task, upscale_by, settings: as in a call of `DiffBIR`.
        images: in the batch.
        memory, host_memory, disk: bytes of device, host and disk to plan for; None takes what is
            free now.
    """

    height: int
    width: int
    task: Task = "sr"
    upscale_by: float = 4.0
    settings: DiffBIRSettings | None = None
    images: int = 1
    memory: int | None = None
    host_memory: int | None = None
    disk: int | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """How pictures of one size go through both stages.

    Attributes:
        order: of stage 1 and the resizing.
        sizes: on the way.
        settings: with the plan's numbers where the memory was to decide.
        plan: what it takes of the memory.
    """

    order: Order
    sizes: Stage1Sizes
    settings: DiffBIRSettings
    plan: MemoryPlan


def require_room_for(
    run: Run, image: Tensor, upscale_by: float, sd_vae: nn.Module, device: torch.device
) -> None:
    """Say before the work that the pictures of a run on images (B, 3, H, W) do not fit: the
    results, and what is alive while one of them is decoded.

    Raises:
        BIRError: they do not.
    """
    batch, _, height, width = image.shape

    def needed(factor: float) -> float:
        sizes = stage1_sizes(height, width, run.order, factor, run.settings.short_side)
        results = picture_bytes(*sizes.output, batch)
        return results + least_decoding_bytes(sd_vae, sizes.condition, run.plan.disk)

    require_room(height, width, upscale_by, needed, [device, CPU])
