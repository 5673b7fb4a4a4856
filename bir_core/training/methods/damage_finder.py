"""Training of the network that finds damage of a picture's surface."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...checkpoints import load_model
from ...degradations import Degraded
from ...errors import BIRError
from ...networks.damage import DamageConfig, DamageFinder, draw_weights
from ..data import Batch
from ..degrading import presets_of, refuse_holes
from ..losses import dice_loss
from ..phases import Phase, Training, Update, parts_by_prefix
from ..recipe import NetworkRecipe
from ..start_files import StartFiles
from ..toml_tables import require


@dataclass(frozen=True, kw_only=True)
class DamageFinderRecipe(NetworkRecipe):
    """Of a network that finds damage. Of the kinds of damage in the recipe, those that do not
    damage the surface give pictures in which there is nothing to find.

    Attributes:
        network: sizes of the network.
        dice: weight of the Dice loss beside the cross-entropy.
    """

    network: DamageConfig = DamageConfig()
    dice: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_holes(self.data)
        require(self.dice >= 0, "a weight of `dice` of 0 or more", self.dice)
        require(
            any(preset.damages_surface for _, preset in presets_of(self.data).values()),
            "a `degradation` that damages the surface, as old_photo does",
            self.data.degradation,
        )

    def target(self, degraded: Degraded) -> Tensor:
        """(B, 3, H, W): 1 where lq is damaged, else 0, in three equal channels."""
        damage = degraded.damage
        mask = torch.zeros_like(degraded.lq[:, :1]) if damage is None else damage
        return mask.expand(-1, 3, -1, -1)


class DamageLoss(nn.Module):
    """Cross-entropy of each pixel, and the Dice loss of the batch."""

    def __init__(self, model: DamageFinder, dice: float) -> None:
        super().__init__()
        self.model = model
        self.dice = dice

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`total` is what is optimised; the parts are shown, unweighted."""
        logits, damage = self.model(batch.lq).float(), batch.hq[:, :1]
        entropy = F.binary_cross_entropy_with_logits(logits, damage)
        dice = dice_loss(logits, damage)
        total = entropy + self.dice * dice
        return {"total": total, "entropy": entropy.detach(), "dice": dice.detach()}


def damage_finder_training(recipe: DamageFinderRecipe, files: StartFiles) -> Training:
    """A network from new weights, or from `files.start_from`.

    Raises:
        BIRError: a start that is no finder of scratches, or one of other sizes.
    """
    with torch.random.fork_rng():  # torch draws weights too, before they are drawn here
        model = DamageFinder(recipe.network)
    draw_weights(model, torch.Generator().manual_seed(recipe.seed))
    if files.start_from is not None:
        start = load_model(files.start_from, architecture="damage_finder")
        if start.config != recipe.network:
            raise BIRError(
                f"Expected a finder of scratches of the recipe's sizes, {recipe.network}, in "
                f"{files.start_from}, but it holds {start.config}; correct `network`, or choose "
                "another file."
            )
        model.load_state_dict(start.state_dict())
    loss = DamageLoss(model, recipe.dice)
    update = Update("network", loss, list(model.parameters()), recipe.optimizer)
    return Training(
        model=model,
        phases=(Phase(1, (update,)),),
        restore=lambda network, lq, hq: network(lq).sigmoid().expand(-1, 3, -1, -1),
        blocks=(*model.encoder, *model.bottom, *model.decoder),
        parts=parts_by_prefix(model, {"tail": ("last.",)}),
    )
