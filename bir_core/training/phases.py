"""What a method brings to the training loop: networks, losses and optimisers, in phases."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import BIRError
from .ema import ExponentialAverage
from .optimizers import OptimizerRecipe


@dataclass(frozen=True)
class Update:
    """One optimiser step of an iteration.

    Attributes:
        name: of the optimiser, in logs and in the state.
        loss: module that maps a Batch to scalars by name; `total` is optimised, the others shown.
            It holds all networks that the loss needs, so that data-parallel wrapping sees them.
        parameters: what the optimiser changes; every other parameter is frozen meanwhile.
        optimizer: its recipe.
    """

    name: str
    loss: nn.Module
    parameters: list[nn.Parameter]
    optimizer: OptimizerRecipe


@dataclass(frozen=True)
class Phase:
    """Updates that are made in every iteration from `first` (counted from 1) to the next phase."""

    first: int
    updates: tuple[Update, ...]


@dataclass(frozen=True)
class Training:
    """What a method brings.

    Attributes:
        model: the network that is averaged, validated and saved.
        phases: in order, the first starting at iteration 1.
        restore: (network, lq, hq) -> restored, for validation; sides divide by `size_multiple`.
        others: further networks that learn, by name, as a discriminator; kept in the state only.
        blocks: modules of `model` that are computed again in the backward pass if the recipe asks
            for checkpointing.
    """

    model: nn.Module
    phases: tuple[Phase, ...]
    restore: Callable[[nn.Module, Tensor, Tensor], Tensor]
    others: dict[str, nn.Module] = field(default_factory=dict)
    blocks: tuple[nn.Module, ...] = ()

    def phase_at(self, iteration: int) -> int:
        """Index of the phase of an iteration."""
        return max(i for i, phase in enumerate(self.phases) if phase.first <= iteration)

    def kept_networks(self, average: ExponentialAverage | None) -> dict[str, nn.Module]:
        """What the state holds, by the first parts of the names in it."""
        networks = {"model": self.model}
        if average is not None:
            networks["average"] = average.average
        return networks | {f"other.{name}": network for name, network in self.others.items()}

    def networks(self) -> dict[str, nn.Module]:
        """The losses of all phases, by phase and update."""
        return {
            f"{index}.{update.name}": update.loss
            for index, phase in enumerate(self.phases)
            for update in phase.updates
        }


def compute_again(blocks: tuple[nn.Module, ...], method: str) -> None:
    """Gradient checkpointing (Chen et al., "Training Deep Nets with Sublinear Memory Cost")."""
    if not blocks:
        raise BIRError(
            f"Expected a method whose blocks can be computed again, but {method} names none; set "
            "checkpointing to false."
        )
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
