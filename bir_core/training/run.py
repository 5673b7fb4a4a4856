"""From a recipe and folders to a finished training."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..degradations import degrade, get_preset, keeps_size
from .data import (
    VALIDATION,
    BatchSource,
    PictureDataset,
    PicturePair,
    find_pairs,
    generator_for,
    read_training_picture,
    to_float,
)
from .loop import ValidationSet, make_accelerator, train
from .methods import make_training
from .recipe import Recipe
from .start_files import StartFiles
from .toml_tables import require

if TYPE_CHECKING:
    from accelerate import Accelerator

Degrade = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]


def run_recipe(
    recipe: Recipe,
    *,
    data: str | Path,
    output: str | Path,
    validation: str | Path | None = None,
    files: StartFiles | None = None,
    resume: bool = False,
    device: str = "auto",
) -> Path:
    """Train what a recipe says.

    Args:
        recipe: from `load_recipe`.
        data: folder with pictures; with subfolders `lq` and `hq` if the recipe trains on pairs.
        output: folder for the model, the state and the logs.
        validation: folder like `data` with held-out pictures; None takes those that the recipe
            holds out of `data`, if it names any.
        files: what the method starts from; None: nothing.
        resume: go on with the training in `output`.
        device: `auto`, `cpu` or `cuda`.

    Returns:
        Path of the trained model, which opens in `bir_core.load_model`.

    Raises:
        BIRError: what is missing or wrong, in one sentence.
    """
    held_out = recipe.validation.held_out
    training = make_training(recipe, files or StartFiles())
    pairs = find_pairs(data, recipe.data, held_out if validation is None else ())
    accelerator = make_accelerator(device)
    source = make_source(recipe, pairs, accelerator)
    if validation is not None:
        tested = find_pairs(validation, recipe.data)
    else:
        tested = [pair for pair in find_pairs(data, recipe.data) if pair.hq.name in held_out]
    return train(
        recipe,
        training,
        source,
        _validation_set(recipe, tested, source.degrade) if tested else None,
        accelerator,
        output=Path(output),
        resume=resume,
    )


def make_source(
    recipe: Recipe, pairs: list[PicturePair], accelerator: "Accelerator"
) -> BatchSource:
    """The batches of this process, as a recipe wants them, from files."""
    dataset = PictureDataset(
        pairs,
        patch=recipe.data.source_patch or recipe.data.patch,
        scale=recipe.scale,
        augmentation=recipe.data.augmentation,
        seed=recipe.seed,
        cache=recipe.data.cache,
    )
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
        return degraded.lq, degraded.hq

    return degrade_batch


def _validation_set(
    recipe: Recipe, pairs: list[PicturePair], degrade_batch: Degrade | None
) -> ValidationSet:
    def pair(index: int) -> tuple[Tensor, Tensor]:
        chosen = pairs[index]
        hq = to_float(read_training_picture(chosen.hq))[None]
        if chosen.lq is not None:
            return to_float(read_training_picture(chosen.lq))[None], hq
        assert degrade_batch is not None  # pairs without lq come with a degradation
        return degrade_batch(hq, generator_for(recipe.seed, VALIDATION, index))

    return ValidationSet(len(pairs), pair, recipe.validation, recipe.size_multiple)
