"""One estimate for a batch, whose images are all restored in the same way."""

from collections.abc import Sequence
from dataclasses import fields
from statistics import median
from typing import Any

from ..estimate import Estimate, Measured

# Of a picture without JPEG.
NO_JPEG = Measured(100.0, 0.0)


def of_batch(found: Sequence[Estimate]) -> Estimate:
    """The median of each number and of its spread, a picture without JPEG counting as quality 100.

    Args:
        found: of each image, at least one.
    """
    middles = {
        field.name: _middle([getattr(each, field.name) for each in found], field.name)
        for field in fields(Estimate)
    }
    return Estimate(**middles)


def _middle(values: list[Any], name: str) -> Any:
    if name.endswith("quality"):
        middle = _measured([value or NO_JPEG for value in values])
        return None if middle.value >= NO_JPEG.value else middle
    if isinstance(values[0], Measured):
        return _measured(values)
    if isinstance(values[0], tuple):
        return tuple(median(each) for each in zip(*values, strict=True))
    return median(values)


def _measured(values: list[Measured]) -> Measured:
    return Measured(median(each.value for each in values), median(each.spread for each in values))
