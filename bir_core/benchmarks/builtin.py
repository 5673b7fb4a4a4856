"""Time and memory of the built-in models."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from ..checkpoints import load_model
from ..restoring import restore
from ..weights import BUILTIN_NAMES
from .measuring import seconds_of
from .tensor_memory import peak_tensors_of


@dataclass(frozen=True)
class ModelSpeed:
    """Of one picture through a model.

    Attributes:
        name: of the model.
        seconds: the shortest run.
        per_megapixel: seconds for a million pixels of the result.
        tensors: peak bytes of what the run makes, the result included.
    """

    name: str
    seconds: float
    per_megapixel: float
    tensors: int


def builtin_speeds(
    height: int, width: int, device: torch.device, repeats: int
) -> Iterator[ModelSpeed]:
    """Measure each built-in model on a picture of (height, width) pixels.

    Args:
        repeats: timed runs, after one that is not.
    """
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)).to(device)
    for name in BUILTIN_NAMES:
        model: nn.Module = load_model(name, device=device)
        run = partial(restore, image, model)
        result, tensors = peak_tensors_of(run)
        seconds = min(seconds_of(run, device) for _ in range(repeats))
        pixels = result.shape[-2] * result.shape[-1]
        yield ModelSpeed(name, seconds, seconds / pixels * 1e6, tensors)
