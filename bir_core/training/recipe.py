"""A training recipe: one TOML file, read into frozen dataclasses.

Every key of the file is checked, so that a misspelt one is an error and not a silent default.
"""

import difflib
import sys
import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from importlib.resources import files
from math import cos, pi
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..errors import BIRError
from ..networks.diffir import DiffIRConfig

Method = Literal["diffir_s1", "diffir_s2"]
Augmentation = Literal["none", "hflip", "dihedral"]


def _require(condition: bool, expected: str, came: object) -> None:
    if not condition:
        raise BIRError(f"The recipe should have {expected}, but {came!r} came; correct the value.")


@dataclass(frozen=True, kw_only=True)
class Constant:
    """The base rate throughout."""

    kind: Literal["constant"] = "constant"

    def rate(self, base: float, position: int) -> float:
        """Learning rate at an iteration; `position` is 0 at the first one of the phase."""
        return base


@dataclass(frozen=True, kw_only=True)
class Milestones:
    """The base rate times `factor` for each of the positions `at` that is reached."""

    kind: Literal["milestones"] = "milestones"
    at: tuple[int, ...]
    factor: float = 0.5

    def rate(self, base: float, position: int) -> float:
        """Learning rate at `position`, 0 at the first iteration of the phase."""
        reached = sum(position >= milestone for milestone in self.at)
        return float(base * self.factor**reached)


@dataclass(frozen=True, kw_only=True)
class Decay:
    """base * factor^((position + offset) // every): the rule that the official second stages set by
    hand. Their first phase counts from 1, so that it decays one iteration early: `offset` = 1."""

    kind: Literal["decay"] = "decay"
    every: int
    factor: float = 0.5
    offset: int = 0

    def __post_init__(self) -> None:
        _require(self.every > 0, "a decay interval `every` of at least 1 iteration", self.every)

    def rate(self, base: float, position: int) -> float:
        """Learning rate at `position`, 0 at the first iteration of the phase."""
        return float(base * self.factor ** ((position + self.offset) // self.every))


@dataclass(frozen=True, kw_only=True)
class CosineCycles:
    """Half cosines from the base rate to `minima`, one for each of `periods`, back to back; the
    last minimum holds afterwards. A minimum above the base rate makes the rate rise."""

    kind: Literal["cosine"] = "cosine"
    periods: tuple[int, ...]
    minima: tuple[float, ...]

    def __post_init__(self) -> None:
        _require(
            len(self.periods) == len(self.minima) > 0 and min(self.periods) > 0,
            "as many cosine `minima` as `periods`, all periods positive",
            (self.periods, self.minima),
        )

    def rate(self, base: float, position: int) -> float:
        """Learning rate at `position`, 0 at the first iteration of the phase."""
        start = 0
        for period, minimum in zip(self.periods, self.minima, strict=True):
            if position < start + period:
                done = (position - start) / period
                return minimum + 0.5 * (base - minimum) * (1 + cos(pi * done))
            start += period
        return self.minima[-1]


Schedule = Constant | Milestones | Decay | CosineCycles


@dataclass(frozen=True, kw_only=True)
class OptimizerRecipe:
    """Adam without weight decay.

    Attributes:
        rate: base learning rate.
        betas: of Adam.
        schedule: how the rate changes with the iterations of the phase.
        warmup: iterations over which the rate rises linearly from 0 to its schedule.
        clip: largest norm of the gradient; 0 leaves it alone.
    """

    rate: float
    betas: tuple[float, float] = (0.9, 0.99)
    schedule: Schedule = Constant()
    warmup: int = 0
    clip: float = 0.0

    def __post_init__(self) -> None:
        _require(0 < self.rate <= 1, "a learning `rate` in (0, 1]", self.rate)
        _require(all(0 <= beta < 1 for beta in self.betas), "Adam `betas` in [0, 1)", self.betas)
        _require(self.warmup >= 0, "a `warmup` of 0 iterations or more", self.warmup)
        _require(self.clip >= 0, "a gradient `clip` of 0 (off) or more", self.clip)

    def rate_at(self, position: int) -> float:
        """Learning rate at an iteration; `position` is 0 at the first one of the phase."""
        rate = self.schedule.rate(self.rate, position)
        return rate * min(1.0, (position + 1) / self.warmup) if self.warmup else rate


@dataclass(frozen=True, kw_only=True)
class PatchStage:
    """A stretch of iterations with a patch and a batch of its own (progressive training)."""

    patch: int
    batch: int
    iterations: int


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """Where pairs come from.

    Attributes:
        degradation: name of a preset that makes the low-quality picture from the clean one, or
            "pairs": the data folder holds `lq` and `hq` with pictures of equal names.
        patch: side in pixels of the high-quality patches that the networks see.
        source_patch: side of the patch that is cut from the picture and degraded; a random paired
            crop of `patch` follows. 0: the same as `patch`.
        batch: pairs per process and micro-batch.
        accumulate: micro-batches per iteration, whose gradients are averaged.
        augmentation: `hflip` (probability 0.5), `dihedral` (the eight flips and turns, uniform;
            also what two flips and a transposition, each with probability 0.5, amount to) or
            `none`.
        pool: pairs kept in a pool from which batches are drawn, so that a batch mixes degradations;
            0: no pool. A multiple of `batch`.
        progressive: stages that replace `patch` and `batch` from the first iteration on: a random
            subset of each batch and one common random crop of it. The last stage stays.
        workers: processes that read pictures; 0 reads in the training process.
        cache: decode all pictures once and keep them in memory as 8-bit values.
    """

    degradation: str
    patch: int
    source_patch: int = 0
    batch: int
    accumulate: int = 1
    augmentation: Augmentation = "hflip"
    pool: int = 0
    progressive: tuple[PatchStage, ...] = ()
    workers: int = 0
    cache: bool = False

    def __post_init__(self) -> None:
        _require(self.patch > 0, "a `patch` of at least 1 pixel", self.patch)
        _require(
            self.source_patch == 0 or self.source_patch >= self.patch,
            f"a `source_patch` of 0 or at least `patch` = {self.patch}",
            self.source_patch,
        )
        _require(self.batch > 0, "a `batch` of at least 1", self.batch)
        _require(self.accumulate > 0, "an `accumulate` of at least 1", self.accumulate)
        _require(
            self.pool >= 0 and self.pool % self.batch == 0,
            f"a `pool` that divides by `batch` = {self.batch}",
            self.pool,
        )
        _require(self.workers >= 0, "0 or more `workers`", self.workers)
        for stage in self.progressive:
            _require(
                0 < stage.patch <= self.patch
                and 0 < stage.batch <= self.batch
                and stage.iterations > 0,
                f"progressive stages of at most patch {self.patch} and batch {self.batch}",
                stage,
            )

    def stage_at(self, iteration: int) -> PatchStage | None:
        """The progressive stage of an iteration (from 1), None where the recipe has no stages."""
        last = 0
        for stage in self.progressive:
            last += stage.iterations
            if iteration <= last:
                return stage
        return self.progressive[-1] if self.progressive else None


@dataclass(frozen=True, kw_only=True)
class ValidationRecipe:
    """PSNR and SSIM on held-out pictures during training.

    Attributes:
        every: iterations between two validations; 0: never.
        patch: side of the central crop of each picture, in pixels; 0: the whole picture.
        channel: `y` (BT.601 luma) or `rgb`.
        held_out: file names in the training folder that are kept out of training and used for
            validation if no other folder is given.
    """

    every: int = 5000
    patch: int = 0
    channel: Literal["y", "rgb"] = "y"
    held_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(self.every >= 0 and self.patch >= 0, "`every` and `patch` of 0 or more", self)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that determines a training, but for the pictures.

    Attributes:
        method: `diffir_s1` or `diffir_s2`.
        iterations: optimiser steps in all, counted from 1.
        seed: of the network's initial weights and of every draw.
        network: sizes of the network.
        initialisation: `torch` leaves the framework's defaults, as the official code does; features
            shrink at each layer, and the prior and the modulation by it start some 30 times too
            small, which a million iterations outgrow. `he` keeps magnitudes, for short trainings.
        data: pairs, patches and batches.
        optimizer: of the whole network; in stage 2 of its second phase.
        encoder_optimizer: stage 2 only: of the first phase, in which only the condition and the
            denoiser learn, to estimate the prior of stage 1.
        encoder_iterations: stage 2 only: the first phase are the iterations below this number.
        ema: decay of the average of the weights that is saved as the model; 0: no average.
        precision: `fp32`, or `bf16` for mixed precision.
        validation: held-out measurement.
        save_every: iterations between two saved states.
    """

    method: Method
    iterations: int
    seed: int = 0
    network: DiffIRConfig
    initialisation: Literal["torch", "he"] = "torch"
    data: DataRecipe
    optimizer: OptimizerRecipe
    encoder_optimizer: OptimizerRecipe | None = None
    encoder_iterations: int = 0
    ema: float = 0.999
    precision: Literal["fp32", "bf16"] = "fp32"
    validation: ValidationRecipe = ValidationRecipe()
    save_every: int = 5000

    def __post_init__(self) -> None:
        _require(self.iterations > 0, "`iterations` of at least 1", self.iterations)
        _require(0 <= self.ema < 1, "an `ema` decay in [0, 1)", self.ema)
        _require(self.save_every > 0, "a `save_every` of at least 1", self.save_every)
        if self.method == "diffir_s1":
            _require(
                self.encoder_optimizer is None and self.encoder_iterations == 0,
                "no encoder phase in stage 1",
                self.encoder_optimizer or self.encoder_iterations,
            )
        _require(
            (self.encoder_optimizer is None) == (self.encoder_iterations == 0),
            "`encoder_optimizer` and `encoder_iterations` both or neither",
            self.encoder_iterations,
        )
        multiple = self.network.size_multiple * self.network.scale
        patches = (self.data.patch, *(stage.patch for stage in self.data.progressive))
        for patch in patches:
            _require(
                patch % multiple == 0,
                f"patches that divide by {multiple} for this network",
                patch,
            )


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = files(__package__) / "recipes"
    names = (entry.name for entry in folder.iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def load_recipe(source: str | Path, changes: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe.

    Args:
        source: name of a shipped recipe, or a TOML file.
        changes: `key=value` each, the key dotted (`data.batch=4`), the value as TOML; a text
            needs no quotes.

    Raises:
        BIRError: no such recipe or file, no TOML, an unknown or absent key, a value of a wrong type
            or out of range.
    """
    shipped = files(__package__) / "recipes" / f"{source}.toml"
    if str(source) in shipped_recipes():
        text = shipped.read_text(encoding="utf-8")
    elif Path(source).is_file():
        text = Path(source).read_text(encoding="utf-8")
    else:
        near = difflib.get_close_matches(str(source), shipped_recipes(), 1)
        guess = f"did you mean {near[0]}?" if near else f"choose {', '.join(shipped_recipes())}."
        raise BIRError(
            f"Expected the name of a shipped recipe or a TOML file, but {source} is neither; "
            f"{guess}"
        )
    table = _parse_toml(text, str(source))
    for change in changes:
        _apply_change(table, change)
    return recipe_from_table(table)


def recipe_from_table(table: Mapping[str, Any]) -> Recipe:
    """A recipe from nested dictionaries, as TOML gives them; errors as `load_recipe`."""
    recipe: Recipe = _build(Recipe, table, "recipe")
    return recipe


def recipe_to_table(recipe: Recipe) -> dict[str, Any]:
    """Nested dictionaries with every value spelt out; `recipe_from_table` is its inverse."""
    table: dict[str, Any] = _without_none(asdict(recipe))
    return table


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value


def _parse_toml(text: str, name: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ModuleNotFoundError as error:
            raise BIRError(
                "Reading a recipe on Python 3.10 should find the package tomli, but it is absent; "
                "install the extra: pip install comfyui-bir[train]."
            ) from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BIRError(
            f"Expected TOML in {name}, but it cannot be read ({error}); correct that line."
        ) from error


def _apply_change(table: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals:
        raise BIRError(f"A change should read key=value, but {change!r} came; add the value.")
    try:
        value = _parse_toml(f"value = {text}", change)["value"]
    except BIRError:
        value = text  # a text without quotes
    *parents, last = key.strip().split(".")
    for parent in parents:
        inner = table.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise BIRError(f"A change should name a key of a table, but {parent} in {key} is none.")
        table = inner
    table[last] = value


def _build(kind: Any, table: Any, where: str) -> Any:
    """A dataclass from a dictionary of its fields."""
    if not isinstance(table, Mapping):
        raise BIRError(f"Expected a table of keys for {where}, but {table!r} came; correct it.")
    types_of = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, cutoff=0.5)
            guess = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(known)}."
            raise BIRError(f"The {where} has an unknown key {key}; {guess}")
    for name, field in known.items():
        if name not in table and field.default is MISSING and field.default_factory is MISSING:
            raise BIRError(f"The {where} should have the key {name}, but it is absent; add it.")
    values = {key: _convert(types_of[key], value, f"{where}.{key}") for key, value in table.items()}
    return kind(**values)


def _convert(kind: Any, value: Any, where: str) -> Any:
    """A TOML value as the type of its field."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _build(kind, value, where)
    if origin in (Union, types.UnionType):
        return _convert_union(
            [part for part in arguments if part is not types.NoneType], value, where
        )
    if origin is Literal:
        if value not in arguments:
            raise BIRError(
                f"Expected one of {arguments} for {where}, but {value!r} came; choose one."
            )
        return value
    if origin is tuple:
        return _convert_tuple(arguments, value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise BIRError(
            f"Expected a value of type {kind.__name__} for {where}, but {value!r} came; correct it."
        )
    return value


def _convert_union(members: list[Any], value: Any, where: str) -> Any:
    if len(members) == 1:
        return _convert(members[0], value, where)
    by_kind = {member.kind: member for member in members}
    chosen = value.get("kind") if isinstance(value, Mapping) else None
    if chosen not in by_kind:
        raise BIRError(
            f"Expected a `kind` out of {', '.join(by_kind)} for {where}, but {chosen!r} came; "
            "choose one."
        )
    return _build(by_kind[chosen], value, where)


def _convert_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise BIRError(f"Expected a list for {where}, but {value!r} came; write [a, b, ...].")
    if arguments[-1] is Ellipsis:
        return tuple(_convert(arguments[0], item, where) for item in value)
    if len(value) != len(arguments):
        raise BIRError(
            f"Expected {len(arguments)} values for {where}, but {len(value)} came; "
            "correct the list."
        )
    return tuple(_convert(kind, item, where) for kind, item in zip(arguments, value, strict=True))
