"""Optimisers of a recipe: Adam and the rules by which its learning rate changes."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import cos, pi
from typing import Literal

import torch
from torch import nn

from .toml_tables import require


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
        require(self.every > 0, "a decay interval `every` of at least 1 iteration", self.every)

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
        require(
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
    """Adam, with decoupled weight decay (AdamW) if it is not 0.

    Attributes:
        rate: base learning rate.
        betas: of Adam.
        weight_decay: share of each weight that an iteration takes off, times the learning rate.
        schedule: how the rate changes with the iterations of the phase.
        warmup: iterations over which the rate rises linearly from 0 to its schedule.
        clip: largest norm of the gradient; 0 leaves it alone.
        fused: update all weights in one kernel.
    """

    rate: float
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    schedule: Schedule = Constant()
    warmup: int = 0
    clip: float = 0.0
    fused: bool = False

    def __post_init__(self) -> None:
        require(0 < self.rate <= 1, "a learning `rate` in (0, 1]", self.rate)
        require(all(0 <= beta < 1 for beta in self.betas), "Adam `betas` in [0, 1)", self.betas)
        require(self.weight_decay >= 0, "a `weight_decay` of 0 or more", self.weight_decay)
        require(self.warmup >= 0, "a `warmup` of 0 iterations or more", self.warmup)
        require(self.clip >= 0, "a gradient `clip` of 0 (off) or more", self.clip)

    def rate_at(self, position: int) -> float:
        """Learning rate at an iteration; `position` is 0 at the first one of the phase."""
        rate = self.schedule.rate(self.rate, position)
        return rate * min(1.0, (position + 1) / self.warmup) if self.warmup else rate

    def make(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """A new optimiser of these parameters, without moments."""
        return torch.optim.AdamW(
            parameters,
            lr=self.rate,
            betas=self.betas,
            weight_decay=self.weight_decay,
            fused=self.fused or None,  # None: torch decides between its other two
        )
