"""The losses table of a recipe: what a restored picture is compared by."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from .data import Batch
from .losses import charbonnier, log_squared_error, pixel_l1, pixel_l2
from .toml_tables import require

PIXEL_LOSSES = {
    "l1": pixel_l1,
    "l2": pixel_l2,
    "charbonnier": charbonnier,
    "log_squared_error": log_squared_error,
}


@dataclass(frozen=True, kw_only=True)
class LossTerm:
    """A part of the loss.

    Attributes:
        weight: of this part in the sum.
        start: first iteration in which it counts.
    """

    weight: float
    start: int = 1

    def __post_init__(self) -> None:
        require(self.weight >= 0, "a loss `weight` of 0 or more", self.weight)
        require(self.start >= 1, "a `start` iteration of 1 or more", self.start)


@dataclass(frozen=True, kw_only=True)
class PixelLossTable:
    """Losses of pixels, see `losses.py`; those of weight 0 are left out.

    Attributes:
        l1: mean absolute difference.
        l2: mean squared difference; the minimum is that of L_RM of DiffBIR, which sums.
        charbonnier: mean absolute difference, smooth at 0.
        log_squared_error: logarithm of each picture's mean squared difference. A pixel loss is paid
            by the noisy pictures and sacrifices what is already good; this one does not.
    """

    l1: LossTerm = LossTerm(weight=0.0)
    l2: LossTerm = LossTerm(weight=0.0)
    charbonnier: LossTerm = LossTerm(weight=0.0)
    log_squared_error: LossTerm = LossTerm(weight=0.0)

    def __post_init__(self) -> None:
        terms = self.terms().values()
        require(
            any(term.start == 1 for term in terms),
            "`losses` of which at least one has a weight above 0 and counts from iteration 1 on",
            {name: term.weight for name, term in self.terms().items()},
        )

    def terms(self) -> dict[str, LossTerm]:
        """Those with a weight, by name."""
        terms = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: term for name, term in terms.items() if term.weight > 0}


class PixelLosses(nn.Module):
    """The weighted sum of a table's losses."""

    def __init__(self, table: PixelLossTable) -> None:
        super().__init__()
        self.table = table

    def forward(self, restored: Tensor, batch: Batch) -> dict[str, Tensor]:
        """`total` is what is optimised; the parts that count at the batch's iteration are shown,
        unweighted.

        Args:
            restored: (B, 3, H, W), compared with the batch's hq.
        """
        parts = {
            name: PIXEL_LOSSES[name](restored, batch.hq)
            for name, term in self.table.terms().items()
            if batch.iteration >= term.start
        }
        weighted = [self.table.terms()[name].weight * part for name, part in parts.items()]
        return {
            "total": torch.stack(weighted).sum(),
            **{name: part.detach() for name, part in parts.items()},
        }
