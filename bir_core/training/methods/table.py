"""The table of training methods, and reading a recipe of any of them."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from ...checkpoints import inspect
from ...errors import BIRError
from ..phases import Training, freeze_parts
from ..recipe import Recipe
from ..start_files import StartFiles, require_files
from ..toml_tables import apply_change, from_table, parse_toml, to_table
from . import (
    damage_finder,
    diffir,
    diffir_gan,
    diffir_inpainting,
    estimate,
    ir_controlnet,
    restoration_module,
    swinir,
)


@dataclass(frozen=True)
class Method:
    """How a kind of network is trained.

    Attributes:
        recipe: what its TOML files hold.
        training: from a recipe of this kind and its files.
        start: architecture of `start_from`, whose sizes the recipe need not say; "" where recipes
            say no sizes.
        needed: names of the `StartFiles` that it cannot do without.
        one_of: names of which it needs at least one.
        optional: names of those that it also takes.
    """

    recipe: type[Recipe]
    training: Callable[[Any, StartFiles], Training]
    start: str = ""
    needed: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


METHODS = {
    "diffir_s1": Method(
        diffir.Stage1Recipe,
        diffir.stage1_training,
        start="diffir_s1",
        optional=("start_from", "perceptual"),
    ),
    "diffir_s2": Method(
        diffir.Stage2Recipe,
        diffir.stage2_training,
        start="diffir_s2",
        one_of=("stage1", "start_from"),
        optional=("perceptual",),
    ),
    "diffir_gan": Method(
        diffir_gan.GANRecipe,
        diffir_gan.gan_training,
        start="diffir_s2",
        needed=("stage1", "start_from"),
        optional=("perceptual",),
    ),
    "diffir_inpainting_s1": Method(
        diffir_inpainting.InpaintingRecipe,
        diffir_inpainting.inpainting_stage1_training,
        start="diffir_s1",
        optional=("start_from", "perceptual"),
    ),
    "diffir_inpainting_s2": Method(
        diffir_inpainting.InpaintingRecipe,
        diffir_inpainting.inpainting_stage2_training,
        start="diffir_s2",
        one_of=("stage1", "start_from"),
        optional=("perceptual",),
    ),
    "restoration_module": Method(
        restoration_module.RestorationModuleRecipe,
        restoration_module.restoration_module_training,
        start="compact",
        optional=("start_from", "perceptual"),
    ),
    "damage_finder": Method(
        damage_finder.DamageFinderRecipe,
        damage_finder.damage_finder_training,
        start="damage_finder",
        optional=("start_from",),
    ),
    "swinir": Method(
        swinir.SwinIRRecipe,
        swinir.swinir_training,
        start="swinir",
        optional=("start_from", "perceptual"),
    ),
    "estimate": Method(
        estimate.EstimateRecipe,
        estimate.estimate_training,
        start="estimator",
        optional=("start_from",),
    ),
    "ir_controlnet": Method(
        ir_controlnet.IRControlNetRecipe,
        ir_controlnet.ir_controlnet_training,
        needed=("base", "restoration_module"),
        optional=("start_from",),
    ),
}


def make_training(recipe: Recipe, start_files: StartFiles) -> Training:
    """Networks, losses and phases of a recipe.

    Args:
        start_files: its `start_from` goes before that of the recipe.

    Raises:
        BIRError: a file is missing, needless or of another network; a part that is to be frozen is
            none of the network's, or nothing is left to learn.
    """
    method = METHODS[recipe.method]
    if start_files.start_from is None and recipe.start_from is not None:
        start_files = replace(start_files, start_from=Path(recipe.start_from))
    require_files(start_files, method.needed, method.one_of, method.optional, recipe.method)
    return freeze_parts(method.training(recipe, start_files), recipe.freeze, recipe.method)


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = files(__package__.rpartition(".")[0]) / "recipes"
    names = (entry.name for entry in folder.iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def recipe_text(source: str | Path) -> str:
    """The text of a shipped recipe, by its name, or of a TOML file.

    Raises:
        BIRError: no such recipe or file.
    """
    shipped = files(__package__.rpartition(".")[0]) / "recipes" / f"{source}.toml"
    if str(source) in shipped_recipes():
        return shipped.read_text(encoding="utf-8")
    if Path(source).is_file():
        return Path(source).read_text(encoding="utf-8")
    raise BIRError(
        f"Expected the name of a shipped recipe or a TOML file, but {source} is neither; "
        f"{_nearest(str(source), shipped_recipes())}"
    )


def load_recipe(
    source: str | Path, changes: tuple[str, ...] = (), start_from: str | Path | None = None
) -> Recipe:
    """Read a recipe.

    Args:
        source: name of a shipped recipe, or a TOML file.
        changes: `key=value` each, the key dotted (`data.batch=4`), the value as TOML; a text
            needs no quotes. They come after the mixture that the recipe takes from another.
        start_from: replaces the recipe's own; None leaves it.

    Raises:
        BIRError: no such recipe or file, no TOML, an unknown or absent key, a value of a wrong type
            or out of range; a start that is no model of the method.
    """
    table = parse_toml(recipe_text(source), str(source))
    _take_mixture(table)
    for change in changes:
        apply_change(table, change)
        _take_mixture(table)
    if start_from is not None:
        table["start_from"] = str(start_from)
    return recipe_from_table(table)


def _take_mixture(table: dict[str, Any]) -> None:
    """Put the mixture of the recipe that a recipe's `mixture` names in its place."""
    name = _mixture(table)
    if not isinstance(name, str):
        return
    parts = _mixture(parse_toml(recipe_text(name), name))
    if not isinstance(parts, Mapping):
        raise BIRError(
            f"Expected a recipe with tables [data.mixture.NAME] under the name in `mixture`, but "
            f"{name} has none; name another recipe, or write the tables."
        )
    table["data"]["mixture"] = parts


def _mixture(table: Mapping[str, Any]) -> Any:
    data = table.get("data")
    return data.get("mixture") if isinstance(data, Mapping) else None


def recipe_from_table(table: Mapping[str, Any]) -> Recipe:
    """A recipe from nested dictionaries, as TOML gives them; errors as `load_recipe`. The sizes of
    the network that it leaves out are those of the model that it starts from."""
    name = table.get("method")
    if name not in METHODS:
        raise BIRError(
            f"The recipe should have one of the known methods, but {name!r} came; "
            f"{_nearest(str(name), list(METHODS))}"
        )
    return from_table(METHODS[name].recipe, _with_sizes(table, METHODS[name].start), "recipe")


def _with_sizes(table: Mapping[str, Any], architecture: str) -> Mapping[str, Any]:
    start, given = table.get("start_from"), table.get("network", {})
    if not architecture or not isinstance(start, str) or not isinstance(given, Mapping):
        return table  # what is wrong with it is said when it becomes a recipe
    sizes = to_table(inspect(start, architecture=architecture).config)
    return {**table, "network": {**sizes, **given}}


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]}?" if near else f"choose {', '.join(known)}."
