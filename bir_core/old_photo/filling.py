"""Thin damage filled from its surroundings."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..diffir.restore import restore

# Wider holes than this, in pixels, with what was grown around the damage: what was there does not
# follow from the surroundings.
WIDEST = 20

Callback = Callable[[int, int], None]


def fill(
    image: Tensor,
    mask: Tensor,
    model: nn.Module,
    *,
    seed: int = 0,
    callback: Callback | None = None,
) -> Tensor:
    """Fill a hole by a DiffIR of inpainting; what is outside of it stays as it is.

    Args:
        image: (1, 3, H, W) in [0, 1].
        mask: (1, 1, H, W), 1 in the hole, else 0.
        model: as of `load_model`; for thin holes builtin-inpaint.

    Raises:
        BIRError: as `diffir.restore`.
    """
    if not torch.any(mask):
        return image
    return restore(image, model, mask=mask, seed=seed, callback=callback)
