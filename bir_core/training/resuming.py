"""What may be another when a training is resumed: nothing that changes its mathematics, except
learning rates and clipping, which are said aloud."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..errors import BIRError
from .optimizers import OptimizerRecipe
from .recipe import Recipe
from .state import TrainingState
from .toml_tables import from_table, to_table

logger = logging.getLogger(__name__)
# Keys without effect on the weights. Names that are held out are no longer trained on, so that
# they are not among those of validation.
FREE = {"iterations", "save_every", "save_minutes", "keep", "start_from"}
FREE |= {"checkpointing", "tf32", "compile", "channels_last"}
FREE |= {"data.workers", "data.cache"}
FREE |= {f"validation.{key}" for key in ("every", "patch", "border", "channel", "pictures", "best")}
# What decides whether two measurements of validation can be compared.
MEASURED = ("patch", "border", "channel", "best")
SAID_ALOUD = ("rate", "schedule", "warmup", "clip")


def require_resumable(state: TrainingState, recipe: Recipe, path: Path) -> None:
    """Compare the recipe of a state with the one that is to go on, and log what changes the way.

    Keys that the state does not have, as it is older than they are, count as their defaults.

    Args:
        path: of the state, for the error.

    Raises:
        BIRError: a value differs that a training cannot change on its way.
    """
    before = dict(_flat(_table_of(state, recipe, path)))
    now = dict(_flat(to_table(recipe)))
    aloud = tuple(
        f"{field.name}.{key}"
        for field in fields(recipe)
        if isinstance(getattr(recipe, field.name), OptimizerRecipe)
        for key in SAID_ALOUD
    )
    for key in sorted({*before, *now} - FREE):
        if before.get(key) == now.get(key):
            continue
        if not any(key == name or key.startswith(f"{name}.") for name in aloud):
            raise BIRError(
                f"Expected the recipe that {path} was made with, but `{key}` is {now.get(key)} "
                f"instead of {before.get(key)}; resume with the same value or choose another "
                f"output folder ({', '.join(SAID_ALOUD)} of an optimizer, iterations, workers, "
                "saving and validation may change)."
            )
        logger.warning(
            "resumed after iteration %d with another `%s`: %s instead of %s",
            state.iteration,
            key,
            now.get(key),
            before.get(key),
        )


def best_so_far(state: TrainingState, recipe: Recipe) -> float | None:
    """The best measurement of a state; None if the recipe now measures something else."""
    before, now = state.recipe.get("validation", {}), to_table(recipe.validation)
    defaults = to_table(type(recipe.validation)())
    same = all(before.get(key, defaults[key]) == now[key] for key in MEASURED)
    return state.best if same else None


def _table_of(state: TrainingState, recipe: Recipe, path: Path) -> dict[str, Any]:
    """The table of a state's recipe with every value spelt out."""
    if state.recipe.get("method") != recipe.method:
        raise BIRError(
            f"Expected the recipe that {path} was made with, but `method` is {recipe.method} "
            f"instead of {state.recipe.get('method')}; choose another output folder."
        )
    return to_table(from_table(type(recipe), state.recipe, f"recipe in {path}"))


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys with their values."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
