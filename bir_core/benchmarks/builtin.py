"""The built-in models on a picture."""

from functools import partial

import torch
from torch import nn

from ..checkpoints import load_model
from ..restoring import restore
from .comparing import Side
from .measuring import SEED


def builtin_side(
    name: str, height: int, width: int, device: torch.device, dtype: torch.dtype
) -> Side:
    """The restoration of a random picture of (height, width) pixels by a built-in model."""
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(SEED))
    model: nn.Module = load_model(name, device=device, dtype=dtype)
    return Side("restore", partial(restore, image.to(device), model))
