"""The compact restoration module on the command line."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..checkpoints import load_model
from ..command_line.options import DTYPES
from ..memory import MemoryPlan, weight_bytes
from ..networks.compact import CompactRestorer
from .memory_plan import compact_strips
from .restore import restore_compact


@dataclass(frozen=True, kw_only=True)
class CompactOptions:
    """What it is asked for.

    Attributes:
        model: a file, or the name of a built-in model.
        strip: rows at a time; None: from the free memory.
        dtype: a name of `DTYPES`.
    """

    model: str
    strip: int | None = None
    dtype: str = "float32"


def prepare(
    options: CompactOptions, device: torch.device
) -> tuple[Callable[[Tensor, Tensor | None, Callable[[str, int, int], None]], Tensor], int]:
    """Load the model that the options name.

    Returns:
        A function from a picture (1, 3, H, W) in [0, 1], a mask, which it has no use for, and a
        progress callback to the result, and the model's scale.

    Raises:
        BIRError: a file that is missing, unreadable or of another kind.
    """
    model = _load(options, device)

    def restore_image(
        image: Tensor, mask: Tensor | None, report: Callable[[str, int, int], None]
    ) -> Tensor:
        return restore_compact(
            image,
            model,
            strip=options.strip,
            callback=lambda done, total: report("", done, total),
        )

    return restore_image, model.config.scale


def _load(options: CompactOptions, device: torch.device) -> CompactRestorer:
    dtype = DTYPES[options.dtype]
    model = load_model(options.model, device=device, dtype=dtype, architecture="compact")
    assert isinstance(model, CompactRestorer)  # the architecture that was asked for
    return model


def plan(
    options: CompactOptions, device: torch.device, memory: int
) -> tuple[Callable[[int, int], tuple[str, MemoryPlan]], int]:
    """From height and width of a picture to the plan of its restoration, with a title; and the
    scale."""
    model = _load(options, torch.device("cpu"))

    def plan_image(height: int, width: int) -> tuple[str, MemoryPlan]:
        needs = compact_strips(model.config, height, width, device_type=device.type)
        found = needs.plan(weight_bytes(model), memory, DTYPES[options.dtype])
        scale = model.config.scale
        size = f"{width}x{height} -> {width * scale}x{height * scale}"
        return f"Compact module {options.model}, {size}, {options.dtype}", found

    return plan_image, model.config.scale


def open_network(network: nn.Module, name: str) -> tuple[Callable[[Tensor, int], Tensor], int]:
    """A compact restoration module as a function of a picture and a seed, which changes nothing,
    and its scale."""
    assert isinstance(network, CompactRestorer)
    return lambda image, seed: restore_compact(image, network), network.config.scale
