"""DiffIR on the command line: its options, and what they make of a picture."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from ..checkpoints import ModelInfo, load_model
from ..command_line.options import DTYPES
from ..errors import BIRError
from ..memory import MemoryPlan, weight_bytes
from ..networks.diffir import DiffIRStage2
from .memory_plan import diffir_strips, padded
from .restore import restore


@dataclass(frozen=True, kw_only=True)
class DiffIROptions:
    """What it is asked for.

    Attributes:
        model: a file, or the name of a built-in model.
        mask: for inpainting, and only there: a file, or a folder of them; `bir restore` reads them.
        strip: rows at a time; None: from the free memory.
        seed: of the noise of each picture.
        dtype: a name of `DTYPES`.
    """

    model: str
    mask: Path | None = None
    strip: int | None = None
    seed: int = 0
    dtype: str = "float32"


def prepare(
    options: DiffIROptions, device: torch.device
) -> tuple[Callable[[Tensor, Tensor | None, Callable[[str, int, int], None]], Tensor], int]:
    """Load the model that the options name.

    Returns:
        A function from a picture (1, 3, H, W) in [0, 1], a mask (1, 1, H, W) in [0, 1] or None,
        and a progress callback to the result; and the model's scale.

    Raises:
        BIRError: a file that is missing, unreadable or of another kind, or a mask that is missing
            or has no use.
    """
    name = options.model
    model = load_model(name, device=device, dtype=DTYPES[options.dtype], architecture="diffir_s2")
    assert isinstance(model, DiffIRStage2)  # the architecture that was asked for
    _require_mask_if_needed(cast(ModelInfo, model.info), name, options.mask)

    def restore_image(
        image: Tensor, mask: Tensor | None, report: Callable[[str, int, int], None]
    ) -> Tensor:
        return restore(
            image,
            model,
            mask=mask,
            seed=options.seed,
            strip=options.strip,
            callback=lambda done, total: report("", done, total),
        )

    return restore_image, model.config.scale


def _require_mask_if_needed(info: ModelInfo, name: str, mask: Path | None) -> None:
    if info.task == "inpainting" and mask is None:
        raise BIRError(
            f"Expected a mask for the inpainting model {name}, but none came; "
            "give --mask with a picture that is white in the hole."
        )
    if info.task != "inpainting" and mask is not None:
        raise BIRError(
            f"Expected an inpainting model for --mask, but {name} is for {info.task}; "
            "choose another model or leave the mask out."
        )


def plan(
    options: DiffIROptions, device: torch.device, memory: int
) -> tuple[Callable[[int, int], tuple[str, MemoryPlan]], int]:
    """From height and width of a picture to the plan of its restoration, with a title; and the
    scale."""
    dtype = DTYPES[options.dtype]
    model = load_model(options.model, dtype=dtype, architecture="diffir_s2")
    assert isinstance(model, DiffIRStage2)  # the architecture that was asked for
    config = model.config

    def plan_image(height: int, width: int) -> tuple[str, MemoryPlan]:
        needs = diffir_strips(config, *padded(config, height, width), device_type=device.type)
        found = needs.plan(weight_bytes(model), memory, dtype)
        output = f"{width * config.scale}x{height * config.scale}"
        return f"DiffIR {options.model}, {width}x{height} -> {output}, {options.dtype}", found

    return plan_image, config.scale


def open_network(network: nn.Module, name: str) -> tuple[Callable[[Tensor, int], Tensor], int]:
    """A DiffIR stage 2 as a function of a picture and a seed, and its scale.

    Raises:
        BIRError: it is for inpainting.
    """
    assert isinstance(network, DiffIRStage2)
    if network.config.task == "inpainting":
        raise BIRError(
            f"Expected a model for super-resolution, cleaning or deblurring, but {name} is for "
            "inpainting, which needs masks; restore with it and measure its folder by --results."
        )
    return lambda image, seed: restore(image, network, seed=seed), network.config.scale
