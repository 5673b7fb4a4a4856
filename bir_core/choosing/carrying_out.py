"""Carry out what was chosen for a picture, with the built-in networks."""

from functools import partial

from torch import Tensor

from ..images import keep_grey, resize
from ..restoring import LoadNetwork, Report, restore
from .rule import Choice


def carry_out(
    image: Tensor,
    choice: Choice,
    load: LoadNetwork,
    *,
    seed: int = 0,
    strip: int | None = None,
    report: Report = lambda stage, done, total: None,
) -> Tensor:
    """Reduce, clean and enlarge an image as `choice` says, with networks.

    Args:
        image: (1, 3, H, W) in [0, 1], any H and W from 1 on.
        load: gives the networks by their names; called for each that is needed.
        seed: of DiffIR's noise.
        strip: as in `bir_core.restore`.

    Returns:
        (1, 3, H scale, W scale) in [0, 1], fractions of a pixel dropped; `image` itself where
        nothing is to be done.
    """
    if choice.model is None:
        return image
    height, width = image.shape[-2:]
    restored = image
    if choice.reduce > 1:
        restored = _resized(image, height / choice.reduce, width / choice.reduce)
    for stage, name in (("cleaning", choice.clean), ("restoring", choice.model)):
        if name is not None:
            restored = restore(
                restored, load(name), seed=seed, strip=strip, callback=partial(report, stage)
            )
    return keep_grey(_resized(restored, height * choice.scale, width * choice.scale), image)


def _resized(image: Tensor, height: float, width: float) -> Tensor:
    """To these sides without their fractions, but at least 1 pixel."""
    sides = max(1, int(height)), max(1, int(width))
    return image if image.shape[-2:] == sides else resize(image, *sides).clamp(0, 1)
