"""Training of the compact restoration module: stage 1 of DiffBIR, or an upscaler by itself."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ...checkpoints import load_model
from ...errors import BIRError
from ...networks.compact import CompactConfig, CompactRestorer, draw_near_identity, grow_from
from ..data import Batch
from ..degrading import refuse_holes
from ..image_losses import (
    ImageLosses,
    LossTable,
    LossTerm,
    discriminator_updates,
    image_losses,
    learning_beside,
)
from ..phases import Phase, Training, Update, parts_by_prefix
from ..recipe import NetworkRecipe
from ..start_files import StartFiles


@dataclass(frozen=True, kw_only=True)
class RestorationModuleRecipe(NetworkRecipe):
    """Of a compact restoration module.

    Attributes:
        network: sizes of the network.
        losses: by default the squared error (L_RM of DiffBIR).
    """

    network: CompactConfig
    losses: LossTable = LossTable(l2=LossTerm(weight=1.0))

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_holes(self.data)


class RestorationLoss(nn.Module):
    """The losses of a table between the picture and its restoration."""

    def __init__(self, model: CompactRestorer, losses: ImageLosses) -> None:
        super().__init__()
        self.model = model
        self.losses = losses

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`total` is what is optimised."""
        values: dict[str, Tensor] = self.losses(self.model(batch.lq), batch)
        return values


def restoration_module_training(recipe: RestorationModuleRecipe, files: StartFiles) -> Training:
    """A compact restoration module from new weights, or from `files.start_from`: of the same sizes,
    or a smaller one that grows to the recipe's. The last layer is drawn anew if it enlarges by
    another factor.

    Raises:
        BIRError: a start that is no compact restoration module, or a larger one; weights that a
            loss needs are absent.
    """
    with torch.random.fork_rng():  # torch draws weights too, before they are drawn here
        model = CompactRestorer(recipe.network)
    draw_near_identity(model, torch.Generator().manual_seed(recipe.seed))
    if files.start_from is not None:
        grow_from(model, _smaller_chain(files.start_from, recipe.network))
    losses = image_losses(recipe.losses, recipe.seed, files.perceptual)
    loss = RestorationLoss(model, losses)
    update = Update("network", loss, list(model.parameters()), recipe.optimizer)
    return Training(
        model=model,
        phases=(Phase(1, (update, *discriminator_updates(losses))),),
        restore=lambda network, lq, hq: network(lq),
        others=learning_beside(losses),
        parts=parts_by_prefix(model, {"tail": (f"body.{len(model.body) - 1}.",)}),
    )


def _smaller_chain(path: Path, config: CompactConfig) -> CompactRestorer:
    start = load_model(path, architecture="compact")
    assert isinstance(start, CompactRestorer)  # load_model refuses every other architecture
    theirs = start.config
    if theirs.features > config.features or theirs.layers > config.layers:
        raise BIRError(
            f"Expected a compact restoration module of at most {config.features} features and "
            f"{config.layers} layers, as the recipe says, in {path}, but it has {theirs.features} "
            f"and {theirs.layers}; correct `network`, or choose another file."
        )
    return start
