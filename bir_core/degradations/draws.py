"""Random draws from an explicit generator: what every part of a degradation is made of.

The generator lives on the CPU, so that the same state gives the same values on every device. Only
trainings draw the fields of their noise elsewhere, see `noise_generator_for`.
"""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ..errors import BIRError

Range = tuple[float, float]
T = TypeVar("T")


def noise_generator_for(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """What a training draws the noise of pictures on a device from: a generator that lives there,
    so that no noise has to be copied to it.

    Args:
        device: of the pictures.
        generator: on the CPU. One draw of it is the seed of the other, so that a state of it gives
            the same pictures on every device of one kind.

    Returns:
        A CUDA generator for a CUDA device, else `generator` itself: Poisson counts are drawn on a
        CPU or by CUDA only (torch 2.13).
    """
    if device.type != "cuda":
        return generator
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)


def uniform(bounds: Range, generator: torch.Generator) -> float:
    """One number, uniform in [low, high)."""
    low, high = bounds
    position = torch.rand((), generator=generator, dtype=torch.float64).item()
    return low + (high - low) * position


def uniform_per_sample(bounds: Range, count: int, generator: torch.Generator) -> Tensor:
    """(count,) float32 numbers on the CPU, uniform in [low, high)."""
    low, high = bounds
    return low + (high - low) * torch.rand(count, generator=generator)


def chance(probability: float, generator: torch.Generator) -> bool:
    """True with `probability`; always one draw, so that 0 and 1 do not shift what follows."""
    return uniform((0.0, 1.0), generator) < probability


def choose(options: Sequence[T], weights: Sequence[float], generator: torch.Generator) -> T:
    """One of `options`, with probabilities proportional to `weights`."""
    threshold = uniform((0.0, float(sum(weights))), generator)
    total = 0.0
    chosen = options[0]
    for option, weight in zip(options, weights, strict=True):
        if weight > 0 and total <= threshold:
            chosen = option
        total += weight
    return chosen


def choose_evenly(options: Sequence[T], generator: torch.Generator) -> T:
    """One of `options`, all equally likely."""
    return choose(options, [1.0] * len(options), generator)


def require_range(name: str, bounds: Range, lowest: float, highest: float) -> None:
    """Raise BIRError unless lowest <= low <= high <= highest."""
    low, high = bounds
    if not lowest <= low <= high <= highest:
        raise BIRError(
            f"{name} should be a range (low, high) within [{lowest:g}, {highest:g}], "
            f"but ({low:g}, {high:g}) came; change the preset."
        )


def require_probability(name: str, value: float) -> None:
    """Raise BIRError unless 0 <= value <= 1."""
    if not 0 <= value <= 1:
        raise BIRError(
            f"{name} should be a probability in [0, 1], but {value:g} came; change the preset."
        )


def require_weights(name: str, weights: Sequence[float], count: int) -> None:
    """Raise BIRError unless there are `count` weights, none negative and at least one positive."""
    if len(weights) != count or min(weights) < 0 or sum(weights) <= 0:
        raise BIRError(
            f"{name} should be {count} weights that are not negative and not all zero, "
            f"but {tuple(weights)} came; change the preset."
        )
