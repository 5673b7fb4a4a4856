"""From a recipe and folders to a finished training."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..degradations import degrade, get_preset
from ..errors import BIRError
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
from .diffir import stage1_training, stage2_training
from .loop import Training, ValidationSet, make_accelerator, train
from .recipe import Recipe

Degrade = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]


def run_recipe(
    recipe: Recipe,
    *,
    data: str | Path,
    output: str | Path,
    validation: str | Path | None = None,
    stage1: str | Path | None = None,
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
        stage1: checkpoint of stage 1; needed for stage 2.
        resume: go on with the training in `output`.
        device: `auto`, `cpu` or `cuda`.

    Returns:
        Path of the trained model, which opens in `bir_core.load_model`.

    Raises:
        BIRError: what is missing or wrong, in one sentence.
    """
    training = _training(recipe, stage1)
    held_out = recipe.validation.held_out
    pairs = find_pairs(data, recipe.data, held_out if validation is None else ())
    degrade_batch = _degradation(recipe)
    accelerator = make_accelerator(device)
    dataset = PictureDataset(
        pairs,
        patch=recipe.data.source_patch or recipe.data.patch,
        scale=recipe.network.scale,
        augmentation=recipe.data.augmentation,
        seed=recipe.seed,
        cache=recipe.data.cache,
    )
    source = BatchSource(
        dataset,
        recipe.data,
        degrade_batch,
        accelerator.device,
        recipe.seed,
        accelerator.process_index,
        accelerator.num_processes,
    )
    if validation is not None:
        tested = find_pairs(validation, recipe.data)
    else:
        tested = [pair for pair in find_pairs(data, recipe.data) if pair.hq.name in held_out]
    return train(
        recipe,
        training,
        source,
        _validation_set(recipe, tested, degrade_batch) if tested else None,
        accelerator,
        output=Path(output),
        resume=resume,
    )


def _training(recipe: Recipe, stage1: str | Path | None) -> Training:
    if recipe.method == "diffir_s1":
        if stage1 is not None:
            raise BIRError(
                f"A recipe of stage 1 starts from nothing, but the file {stage1} came; leave out "
                "--stage1, or choose a recipe of stage 2."
            )
        return stage1_training(recipe)
    if stage1 is None:
        raise BIRError(
            "A recipe of stage 2 should have the checkpoint of stage 1 to start from, but none "
            "came; train stage 1 first and give its model with --stage1."
        )
    return stage2_training(recipe, stage1)


def _degradation(recipe: Recipe) -> Degrade | None:
    if recipe.data.degradation == "pairs":
        return None
    preset = get_preset(recipe.data.degradation)
    scale = recipe.network.scale

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

    return ValidationSet(len(pairs), pair, recipe.validation, recipe.network.size_multiple)
