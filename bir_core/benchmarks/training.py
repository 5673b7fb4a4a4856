"""How fast a training runs, and what it waits for."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import BIRError
from ..training.data import Batch, open_source
from ..training.loop import Run, make_accelerator
from ..training.methods.table import make_training
from ..training.phases import Phase, Training, Update
from ..training.recipe import Recipe
from ..training.run import make_source
from ..training.start_files import StartFiles, require_files
from .measuring import synchronize

WARM_UP = 2  # iterations that are not counted: reading processes start, kernels are chosen


@dataclass(frozen=True)
class Throughput:
    """What a training does in a second.

    Attributes:
        pictures_per_second: high-quality patches that the networks see, of this process.
        waiting: share of the time in which the training waits for pictures to be read.
        degrading: share of the time that goes into making low-quality pictures; 0 where the
            reading processes make them ahead.
    """

    pictures_per_second: float
    waiting: float
    degrading: float


def training_throughput(
    recipe: Recipe,
    data: str | Path,
    device: str,
    iterations: int,
    files: StartFiles,
    *,
    costs_nothing: bool = False,
) -> Throughput:
    """Run a training without saving it.

    Args:
        recipe, data, device, files: as for `run_recipe`.
        iterations: how many are timed, after two that are not.
        costs_nothing: instead of the recipe's networks, which need no files then, train one that
            costs nothing. What passes is what reading and degrading can supply.

    Raises:
        BIRError: as `run_recipe`; or no iteration.
    """
    if iterations < 1:
        raise BIRError(
            f"Expected at least 1 iteration to be timed, but {iterations} came; give a larger "
            "number."
        )
    if costs_nothing:
        require_files(files, (), (), (), "no network")
        training = training_of_nothing(recipe)
    else:
        training = make_training(recipe, files)
    accelerator = make_accelerator(device)
    source = make_source(recipe, open_source(data, recipe.data), accelerator)
    clock = _Clock(accelerator.device)
    ahead = source.readers_degrade and recipe.data.workers > 0  # in processes that no clock sees
    if source.degrade is not None and not ahead:
        source.degrade = clock.around("degrading", source.degrade)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(recipe, training, source, None, accelerator, Path(folder, "training"))
        run.start()
        batches = source.iterations(1, WARM_UP + iterations)
        following = clock.around("batches", lambda: next(batches))
        step = clock.around("step", run.step)
        pictures = 0
        for iteration in range(1, WARM_UP + iterations + 1):
            if iteration == WARM_UP + 1:
                clock.seconds.clear()
                pictures = 0
            made = following()
            pictures += sum(len(batch.hq) for batch in made)
            step(iteration, made)
    spent = clock.seconds
    total = spent["batches"] + spent["step"]
    degrading = spent.get("degrading", 0.0)
    return Throughput(pictures / total, (spent["batches"] - degrading) / total, degrading / total)


class EnlargedTimes(nn.Module):
    """The enlarged input times a number that is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, lq: Tensor, size: tuple[int, int]) -> Tensor:
        """lq (B, 3 or more, h, w) -> (B, 3, *size), of its first three channels."""
        enlarged = lq[:, :3]
        if enlarged.shape[-2:] != size:
            enlarged = F.interpolate(enlarged, size)
        return self.factor * enlarged


class MeanDifference(nn.Module):
    """Mean absolute difference to hq of what a network makes of lq."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Its one loss, `total`."""
        hq = batch.hq[:, :3]
        return {"total": F.l1_loss(self.network(batch.lq, hq.shape[-2:]), hq)}


def training_of_nothing(recipe: Recipe) -> Training:
    """A training by a recipe's optimiser whose network has one parameter and costs nothing."""
    network = EnlargedTimes()
    parameters = list(network.parameters())
    update = Update("network", MeanDifference(network), parameters, recipe.optimizer)
    return Training(
        network,
        (Phase(1, (update,)),),
        restore=lambda model, lq, hq: model(lq, hq.shape[-2:]),
        blocks=(network,),
    )


class _Clock:
    """Adds up seconds of calls by name; what the device does counts for the call that began it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, timed."""

        def timed(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = call(*arguments)
            synchronize(self.device)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            return result

        return timed
