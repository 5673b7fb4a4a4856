"""Training of SwinIR, the restoration module of DiffBIR's stage 1."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...checkpoints import load_model
from ...errors import BIRError
from ...networks.swinir import SwinIR, SwinIRConfig
from ..data import Batch
from ..degrading import refuse_holes
from ..image_losses import (
    ImageLosses,
    LossTable,
    discriminator_updates,
    learning_beside,
    optional_losses,
)
from ..phases import Phase, Training, Update, parts_by_prefix
from ..recipe import NetworkRecipe
from ..start_files import StartFiles

# What enlarges the features and makes a picture of them.
TAIL = ("conv_before_upsample.", "conv_up", "conv_hr.", "conv_last.")


@dataclass(frozen=True, kw_only=True)
class SwinIRRecipe(NetworkRecipe):
    """Of stage 1 of DiffBIR, where lq has the size of hq; or of SwinIR for super-resolution.

    Attributes:
        network: sizes of the network; those of DiffBIR's files if absent.
        losses: of the restored picture; None: the sum of squares.
    """

    network: SwinIRConfig = SwinIRConfig()
    losses: LossTable | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_holes(self.data)


class SwinIRLoss(nn.Module):
    """The losses of a table, or the squared error, summed over all values of the whole batch (Lin
    et al., "DiffBIR", section on degradation removal).

    Gradients are averaged over micro-batches and processes, so each takes its own sum times their
    number: any split of a batch gives the sum over the batch.
    """

    def __init__(self, model: SwinIR, losses: ImageLosses | None = None) -> None:
        super().__init__()
        self.model = model
        self.losses = losses

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`total` is what is optimised; `mse`, its mean over all values, or the parts of the table
        are shown."""
        restored = self.model(batch.lq, batch.generator)
        if self.losses is not None:
            values: dict[str, Tensor] = self.losses(restored, batch)
            return values
        squares = (restored.float() - batch.hq).square()
        return {"total": squares.sum() * batch.micro_batches, "mse": squares.detach().mean()}


def swinir_training(recipe: SwinIRRecipe, files: StartFiles) -> Training:
    """SwinIR from new weights, or from `files.start_from`.

    Raises:
        BIRError: a start that is no SwinIR, or one of other sizes; weights that a loss needs are
            absent.
    """
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = SwinIR(recipe.network)
    if files.start_from is not None:
        start = load_model(files.start_from, architecture="swinir")
        own = {name: value.shape for name, value in model.state_dict().items()}
        if own != {name: value.shape for name, value in start.state_dict().items()}:
            raise BIRError(
                f"Expected a SwinIR of the recipe's sizes, {recipe.network}, in "
                f"{files.start_from}, but it holds {start.config}; correct `network`, or choose "
                "another file."
            )
        model.load_state_dict(start.state_dict())
    losses = optional_losses(recipe.losses, recipe.seed, files.perceptual)
    loss = SwinIRLoss(model, losses)
    update = Update("network", loss, list(model.parameters()), recipe.optimizer)
    return Training(
        model=model,
        phases=(Phase(1, (update, *discriminator_updates(losses))),),
        restore=lambda network, lq, hq: network(lq),
        others=learning_beside(losses),
        blocks=tuple(model.layers),
        parts=parts_by_prefix(model, {"tail": TAIL}),
    )
