"""Single steps of the training loop, to be compared with formulas."""

import copy
from pathlib import Path

from bir_core.training import loop
from bir_core.training.data import open_source
from bir_core.training.methods.table import make_training
from bir_core.training.run import make_source


def first_step(recipe, files, pictures: Path, output: Path):
    """Make the first iteration of a training.

    Returns:
        The training as it was before the step, the step's batch with a fresh generator, what the
        loop showed, and the gradients of each update by its name, in the order of its parameters.
    """
    training = make_training(recipe, files)
    before = copy.deepcopy(training)
    accelerator = loop.make_accelerator("cpu")
    source = make_source(recipe, open_source(pictures, recipe.data), accelerator)
    run = loop.Run(recipe, training, source, None, accelerator, output)
    run.start()
    batches, again = (next(source.iterations(1, 1)) for _ in range(2))
    shown = run.step(1, batches)
    gradients = {}
    for update, optimizer in zip(training.phases[0].updates, run.optimizers, strict=True):
        # Adam's first moment after one step is (1 - beta1) times the gradient.
        share = 1 - update.optimizer.betas[0]
        gradients[update.name] = [
            optimizer.state[parameter]["exp_avg"] / share for parameter in update.parameters
        ]
    return before, again[0], {name: float(value) for name, value in shown.items()}, gradients
