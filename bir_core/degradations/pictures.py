"""A whole picture degraded, with its alpha channel and its mask: for the command and the node."""

import json
from dataclasses import dataclass

from torch import Tensor

from ..images import crop, extend_opaque, resize
from ..seeds import image_generator
from .degradation import Degradation, Draws, degrade


@dataclass(frozen=True)
class DegradedPicture:
    """What `degrade_picture` returns.

    Attributes:
        image: (1, 3, H', W') float32 in [0, 1], the low-quality picture; with a hole the whole
            picture, in the size and the square of the preset.
        alpha: (1, 1, H', W') in [0, 1], of the part that the image shows; None where the picture
            has none, and with a hole.
        mask: (1, 1, H', W'), 1 in the hole, or in the visible damage of an old photograph; None for
            presets without either.
        original: (1, 3, H, W) float32 in [0, 1], what a restoration is compared with.
        draws: every value that was drawn, see `Degraded`.
    """

    image: Tensor
    alpha: Tensor | None
    mask: Tensor | None
    original: Tensor
    draws: Draws


def degrade_picture(
    image: Tensor,
    alpha: Tensor | None,
    preset: Degradation,
    *,
    seed: int,
    scale: int | None = None,
) -> DegradedPicture:
    """Make a low-quality picture from a good one.

    Args:
        image: (1, 3, H, W) float in [0, 1].
        alpha: (1, 1, H, W) in [0, 1], or None.
        preset: see `get_preset`.
        seed: of all that is drawn, from 0 to below 2^64.
        scale: as in `degrade`.

    Raises:
        BIRError: as `degrade`.
    """
    degraded = degrade(
        extend_opaque(image, alpha), preset, generator=image_generator(seed), scale=scale
    )
    if preset.cuts_holes:
        # A test of inpainting shows another part at another size, and so no alpha.
        hole = degraded.lq[:, 3:]
        return DegradedPicture(degraded.hq, None, hole, degraded.hq, degraded.draws)
    if alpha is not None:
        shown = crop(alpha, degraded.hq.shape[-2], degraded.hq.shape[-1])
        alpha = resize(shown, degraded.lq.shape[-2], degraded.lq.shape[-1], "area")
    return DegradedPicture(degraded.lq, alpha, degraded.damage, degraded.hq, degraded.draws)


def draws_as_json(record: dict[str, object]) -> str:
    """A record that holds drawn values, of plain values and tensors, as lines of JSON."""
    return json.dumps(record, indent=2, default=_plain)


def _plain(value: object) -> object:
    """What json cannot write by itself: tensors become lists."""
    if isinstance(value, Tensor):
        return value.tolist()
    raise TypeError(f"no JSON form for {type(value).__name__}")
