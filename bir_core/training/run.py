"""From a recipe and folders to a finished training."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from ..checkpoints.distances import read_lpips
from .data import (
    VALIDATION,
    BatchSource,
    Degrade,
    ExampleDataset,
    ExampleSource,
    generator_for,
    open_source,
    open_split,
    to_float,
)
from .degrading import recipe_degradation
from .loop import make_accelerator, train
from .methods.table import make_training
from .recipe import Recipe
from .start_files import StartFiles
from .validation import ValidationSet

if TYPE_CHECKING:
    from accelerate import Accelerator

# In the output folder: where the examples of shards begin.
INDEX_FILE = "shards.safetensors"


def run_recipe(
    recipe: Recipe,
    *,
    data: str | Path,
    output: str | Path,
    validation: str | Path | None = None,
    files: StartFiles | None = None,
    resume: bool | Literal["auto"] = False,
    device: str = "auto",
) -> Path:
    """Train what a recipe says.

    Args:
        recipe: from `load_recipe`.
        data: folder of pictures, list of files or shards; see `open_source`.
        output: folder for the model, the state and the logs.
        validation: held-out pictures, in any form of `data`; None takes those that the recipe
            holds out of the folder `data`, if there are any.
        files: what the method starts from; None: what the recipe says.
        resume: go on with the training in `output`; `auto`: if there is one, else start.
        device: `auto`, `cpu` or `cuda`.

    Returns:
        Path of the trained model, which opens in `bir_core.load_model`.

    Raises:
        BIRError: what is missing or wrong, in one sentence.
    """
    training = make_training(recipe, files or StartFiles())
    index = Path(output, INDEX_FILE)
    if validation is None:
        examples, tested = open_split(data, recipe.data, recipe.validation, index=index)
    else:
        examples = open_source(data, recipe.data, index=index)
        tested = open_source(validation, recipe.data)
    accelerator = make_accelerator(device)
    source = make_source(recipe, examples, accelerator)
    return train(
        recipe,
        training,
        source,
        None if tested is None else _validation_set(recipe, tested, source.degrade),
        accelerator,
        output=Path(output),
        resume=resume,
    )


def make_source(recipe: Recipe, examples: ExampleSource, accelerator: "Accelerator") -> BatchSource:
    """The batches of this process, as a recipe wants them, from examples."""
    dataset = ExampleDataset(examples, recipe.data, scale=recipe.scale, seed=recipe.seed)
    return BatchSource(
        dataset,
        recipe.data,
        recipe_degradation(recipe),
        accelerator.device,
        recipe.seed,
        accelerator.process_index,
        accelerator.num_processes,
    )


def _validation_set(
    recipe: Recipe, examples: ExampleSource, degrade_batch: Degrade | None
) -> ValidationSet:
    def pair(index: int) -> tuple[Tensor, Tensor]:
        whole = examples.read(index)
        hq = to_float(whole.hq)[None]
        if whole.lq is not None:
            return to_float(whole.lq)[None], hq
        assert degrade_batch is not None  # pairs without lq come with a degradation
        lq, hq = degrade_batch(hq, generator_for(recipe.seed, VALIDATION, index))
        return lq, hq[:, :3]

    wanted = recipe.validation.every and recipe.validation.best == "lpips"
    lpips = read_lpips("alex") if wanted else None
    return ValidationSet(sum(examples.sizes), pair, recipe.validation, recipe.size_multiple, lpips)
