"""A scan of an old photograph to the picture without its scratches, and as before it faded."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..diffir.restore import HOLE_FROM
from ..estimate.scratches import BUILTIN, THRESHOLD, damage_mask, find_damage
from ..restoring import LoadNetwork, Report
from .filling import WIDEST, fill
from .levels import Levels, find_levels

# What is done, in this order.
MENDING = ("scratches", "levels", "tone")
FILLER = "builtin-inpaint"
# How likely damage must be to be filled: a pixel that is filled wrongly loses more than one gains.
FILLED_FROM = 0.85
# The share of the pixels that must look damaged, at the usual threshold, for any of it to be
# filled. Of undamaged pictures up to 1 % does: rims, glints and twigs, and filling them costs up to
# 2 dB.
LEAST_FOUND = 0.013


@dataclass(frozen=True)
class Mended:
    """What became of a scan.

    Attributes:
        image: (1, 3, H, W) in [0, 1]; the very scan where nothing was to be done.
        filled: (1, 1, H, W), 1 where damage was filled.
        levels: that were undone.
        words: a line for each thing that was done or left.
    """

    image: Tensor
    filled: Tensor
    levels: Levels
    words: tuple[str, ...]

    @property
    def is_nothing(self) -> bool:
        """Whether the scan stayed as it is."""
        return not self.filled.any() and not self.levels.changes


def mend(
    image: Tensor,
    load: LoadNetwork,
    *,
    mask: Tensor | None = None,
    without: Collection[str] = (),
    seed: int = 0,
    report: Report = lambda stage, done, total: None,
) -> Mended:
    """Find scratches and fill them, then undo fading and tone.

    Args:
        image: (1, 3, H, W) in [0, 1], any size from 1 pixel on.
        load: gives the built-in networks by their names; called for each that is needed.
        mask: (1, 1, H, W), 1 where it is damaged, for instead of what would be found; all of it is
            filled. None: damage is looked for, and filled where it is thin.
        without: of `MENDING`, what is left out.
        seed: of DiffIR's noise.

    Raises:
        BIRError: as `find_damage` and `fill`.
    """
    words = []
    filled = image.new_zeros(1, 1, *image.shape[-2:])
    if "scratches" not in without:
        filled, said = _damage(image, mask, load, report)
        words.append(said)
    mended = image
    if filled.any():
        progress = partial(report, "filling")
        mended = fill(image, filled, load(FILLER), seed=seed, callback=progress)
    levels = Levels()
    if "levels" not in without:
        levels = find_levels(mended, filled, keep_tone="tone" in without)
    if levels.changes:
        mended = levels.undone(mended)
    if "levels" not in without:
        words.append(levels.words)
    return Mended(mended, filled, levels, tuple(words))


def _damage(
    image: Tensor, mask: Tensor | None, load: LoadNetwork, report: Report
) -> tuple[Tensor, str]:
    """What is to be filled, and that in words."""
    if mask is not None:
        hole = (mask.to(image.device) >= HOLE_FROM).to(image.dtype)
        return hole, f"filled what the mask says, {float(hole.mean()):.2%} of the picture"
    probability = find_damage(image, load(BUILTIN), callback=partial(report, "searching"))
    share = float((probability >= THRESHOLD).float().mean())
    found = damage_mask(probability, FILLED_FROM)
    hole = damage_mask(probability, FILLED_FROM, widest=WIDEST)
    if share < LEAST_FOUND:
        return torch.zeros_like(hole), (
            f"{share:.1%} looks damaged, no more than in undamaged pictures: not filled; a mask "
            "says what is"
        )
    left = float((found - hole).mean())
    wide = f"; {left:.2%} is damaged too widely to be filled" if left else ""
    return hole, f"filled scratches on {float(hole.mean()):.2%} of the picture{wide}"
