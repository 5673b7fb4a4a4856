"""From a recipe and folders to a finished training."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ..degradations import degrade, get_preset, keeps_size
from .data import (
    VALIDATION,
    BatchSource,
    ExampleDataset,
    ExampleSource,
    generator_for,
    held_out_source,
    open_source,
    to_float,
)
from .loop import make_accelerator, train
from .methods.table import make_training
from .recipe import Recipe
from .start_files import StartFiles
from .toml_tables import require
from .validation import ValidationSet

if TYPE_CHECKING:
    from accelerate import Accelerator

# In the output folder: where the examples of shards begin.
INDEX_FILE = "shards.safetensors"

Degrade = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]


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
            holds out of the folder `data`, if it names any.
        files: what the method starts from; None: nothing.
        resume: go on with the training in `output`; `auto`: if there is one, else start.
        device: `auto`, `cpu` or `cuda`.

    Returns:
        Path of the trained model, which opens in `bir_core.load_model`.

    Raises:
        BIRError: what is missing or wrong, in one sentence.
    """
    held_out = recipe.validation.held_out
    training = make_training(recipe, files or StartFiles())
    examples = open_source(
        data,
        recipe.data,
        held_out=held_out if validation is None else (),
        index=Path(output, INDEX_FILE),
    )
    tested = None
    if validation is not None:
        tested = open_source(validation, recipe.data)
    elif held_out:
        tested = held_out_source(data, recipe.data, held_out)
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
        _degradation(recipe),
        accelerator.device,
        recipe.seed,
        accelerator.process_index,
        accelerator.num_processes,
    )


def _degradation(recipe: Recipe) -> Degrade | None:
    if recipe.data.degradation == "pairs":
        return None
    preset = get_preset(recipe.data.degradation)
    if keeps_size(preset):
        require(
            recipe.scale == 1,
            f"a degradation that makes pictures {recipe.scale} times smaller",
            recipe.data.degradation,
        )
    scale = None if keeps_size(preset) else recipe.scale

    def degrade_batch(hq: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        degraded = degrade(hq, preset, generator=generator, scale=scale)
        hq = degraded.hq
        if recipe.keeps_unsharpened and degraded.sharpened_from is not None:
            hq = torch.cat([hq, degraded.sharpened_from], dim=1)
        return degraded.lq, hq

    return degrade_batch


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

    return ValidationSet(sum(examples.sizes), pair, recipe.validation, recipe.size_multiple)
