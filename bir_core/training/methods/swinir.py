"""Training of SwinIR, the restoration module of DiffBIR's stage 1."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...checkpoints import load_model
from ...errors import BIRError
from ...networks.swinir import SwinIR, SwinIRConfig
from ..data import Batch
from ..phases import Phase, Training, Update
from ..recipe import NetworkRecipe
from ..start_files import StartFiles


@dataclass(frozen=True, kw_only=True)
class SwinIRRecipe(NetworkRecipe):
    """Of stage 1 of DiffBIR, where lq has the size of hq; or of SwinIR for super-resolution.

    Attributes:
        network: sizes of the network; those of DiffBIR's files if absent.
    """

    network: SwinIRConfig = SwinIRConfig()


class SwinIRLoss(nn.Module):
    """Squared error, summed over all values of the whole batch (Lin et al., "DiffBIR", section on
    degradation removal).

    Gradients are averaged over micro-batches and processes, so each takes its own sum times their
    number: any split of a batch gives the sum over the batch.
    """

    def __init__(self, model: SwinIR) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`total` is what is optimised; `mse`, its mean over all values, is shown."""
        restored = self.model(batch.lq, batch.generator)
        squares = (restored.float() - batch.hq).square()
        return {"total": squares.sum() * batch.micro_batches, "mse": squares.detach().mean()}


def swinir_training(recipe: SwinIRRecipe, files: StartFiles) -> Training:
    """SwinIR from new weights, or from `files.start_from`.

    Raises:
        BIRError: a start that is no SwinIR, or one of other sizes.
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
    update = Update("network", SwinIRLoss(model), list(model.parameters()), recipe.optimizer)
    return Training(
        model=model,
        phases=(Phase(1, (update,)),),
        restore=lambda network, lq, hq: network(lq),
        blocks=tuple(model.layers),
    )
