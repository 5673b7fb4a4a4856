"""How a recipe makes its low-quality pictures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..degradations import Degradation, Degraded, degrade, get_preset
from ..degradations.draws import choose, noise_generator_for
from .recipe import DataRecipe, MixturePart, Recipe
from .toml_tables import from_table, require, to_table


def presets_of(data: DataRecipe) -> dict[str, tuple[float, Degradation]]:
    """Weights and parameters of all kinds of damage that a recipe makes, by name; none for pairs.

    Raises:
        BIRError: an unknown preset, key or value of a change.
    """
    if data.degradation == "pairs":
        return {}
    if data.degradation == "mixture":
        parts = {name: (part.weight, _changed(name, part)) for name, part in data.mixture.items()}
        return {name: part for name, part in parts.items() if part[0] > 0}
    return {data.degradation: (1.0, get_preset(data.degradation))}


def refuse_holes(data: DataRecipe) -> None:
    """Raise BIRError if a recipe's damage is holes, which only inpainting fills."""
    require(
        not any(preset.cuts_holes for _, preset in presets_of(data).values()),
        "a `degradation` that cuts no holes, which only inpainting fills",
        data.degradation,
    )


def _changed(name: str, part: MixturePart) -> Degradation:
    preset = get_preset(part.preset)
    table = _merged(to_table(preset), part.change)
    changed: Degradation = from_table(type(preset), table, f"recipe.data.mixture.{name}.change")
    return changed


def _merged(table: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """A nested table with the values of a change in it."""
    merged = dict(table)
    for key, value in change.items():
        inner = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(inner, dict)
        merged[key] = _merged(inner, value) if both else value  # type: ignore[arg-type]
    return merged


@dataclass(frozen=True)
class PairMaker:
    """Makes pairs of clean pictures, the same kind of damage for all or one drawn for each.

    Attributes:
        kinds: weight and parameters of each kind of damage.
        scale: side of hq divided by side of lq.
        target: from a degraded batch to what the loss wants of it, which stands in the place of hq.
    """

    kinds: tuple[tuple[float, Degradation], ...]
    scale: int
    target: Callable[[Degraded], Tensor]

    def __call__(self, hq: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """hq (B, 3, H, W) in [0, 1] and a generator on the CPU -> lq and hq on the same device.

        Noise of pictures on a CUDA device is drawn there.
        """
        noise = noise_generator_for(hq.device, generator)
        if len(self.kinds) == 1:
            return self._one_kind(hq, self.kinds[0][1], generator, noise)
        weights = [weight for weight, _ in self.kinds]
        kinds = [choose(range(len(weights)), weights, generator) for _ in hq]
        made: dict[int, tuple[Tensor, Tensor]] = {}
        for kind, (_, preset) in enumerate(self.kinds):
            places = [place for place, drawn in enumerate(kinds) if drawn == kind]
            if places:
                lq, target = self._one_kind(hq[places], preset, generator, noise)
                made |= dict(zip(places, zip(lq, target, strict=True), strict=True))
        pairs = [made[place] for place in range(len(hq))]
        return torch.stack([lq for lq, _ in pairs]), torch.stack([target for _, target in pairs])

    def _one_kind(
        self,
        hq: Tensor,
        preset: Degradation,
        generator: torch.Generator,
        noise: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        scale = None if preset.keeps_size else self.scale
        degraded = degrade(hq, preset, generator=generator, noise=noise, scale=scale)
        return degraded.lq, self.target(degraded)


def recipe_degradation(recipe: Recipe) -> PairMaker | None:
    """What makes the pairs of a recipe; None where they are files.

    Raises:
        BIRError: a preset that does not fit the scale of the recipe's network, or as `presets_of`.
    """
    kinds = presets_of(recipe.data)
    for name, (_, preset) in kinds.items():
        require(
            recipe.scale == 1 or not preset.keeps_size,
            f"a degradation that makes pictures {recipe.scale} times smaller",
            name,
        )
    if not kinds:
        return None
    return PairMaker(tuple(kinds.values()), recipe.scale, recipe.target)
