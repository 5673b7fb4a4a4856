"""The options of `bir restore --method diffir`, and what they make of a picture."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from ..checkpoints import ModelInfo, load_model
from ..commands.options import DTYPES, positive
from ..errors import BIRError
from ..weights import BUILTIN_NAMES, builtin_model_path
from .restore import restore

DEFAULT_MODEL = "builtin-x4"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that only `--method diffir` takes; those that were not given stay None."""
    group = parser.add_argument_group("DiffIR", "only with --method diffir")
    group.add_argument(
        "--model",
        metavar="NAME|FILE",
        help=f"{', '.join(BUILTIN_NAMES)} or a checkpoint file (default: {DEFAULT_MODEL})",
    )
    group.add_argument(
        "--mask",
        metavar="FILE|FOLDER",
        type=Path,
        help="for inpainting: a mask for all pictures, white in the hole, or a folder of masks "
        "named like the pictures",
    )
    group.add_argument(
        "--strip",
        metavar="ROWS",
        type=positive,
        help="rows of the working grid that are computed at a time; fewer take less memory; the "
        "result is the same (default: from free memory)",
    )


def prepare(
    options: argparse.Namespace, device: torch.device
) -> Callable[[Tensor, Tensor | None, Callable[[int, int], None]], Tensor]:
    """Load the model that the options name.

    Returns:
        A function from a picture (1, 3, H, W) in [0, 1], a mask (1, 1, H, W) of 0 and 1 or None,
        and a progress callback to the result.

    Raises:
        BIRError: a file that is missing, unreadable or of another kind, or a mask that is missing
            or has no use.
    """
    name = options.model or DEFAULT_MODEL
    model = load_model(
        builtin_model_path(name) or name,
        device=device,
        dtype=DTYPES[options.dtype],
        architecture="diffir_s2",
    )
    _require_mask_if_needed(cast(ModelInfo, model.info), name, options.mask)

    def restore_image(
        image: Tensor, mask: Tensor | None, callback: Callable[[int, int], None]
    ) -> Tensor:
        return restore(
            image, model, mask=mask, seed=options.seed, strip=options.strip, callback=callback
        )

    return restore_image


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
