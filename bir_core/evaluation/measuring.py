"""Pictures in, rows of a table out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import BIRError
from .frechet import frechet_distance
from .metrics import Metric, Settings
from .tables import Row
from .weight_files import require_weights


@dataclass(frozen=True)
class Sample:
    """A picture to measure.

    Attributes:
        name: of its file.
        restored: (1, 3, H, W) in [0, 1] by the name of what restored it.
        hq: the original of the same size, or None.
    """

    name: str
    restored: dict[str, Tensor]
    hq: Tensor | None


class Evaluation:
    """Measures pictures one by one, and sums up.

    Args:
        metrics: what to measure.
        has_originals: whether samples bring them.
        has_reference: whether `add_reference` is called for each picture of the set that
            measures of sets compare with; else that set is the originals.

    Raises:
        BIRError: a metric without what it compares with, its package or its weights; or a set that
            no metric compares with.
    """

    def __init__(
        self,
        metrics: Sequence[Metric],
        settings: Settings,
        *,
        has_originals: bool,
        has_reference: bool,
    ) -> None:
        if has_reference and all(metric.compares != "others" for metric in metrics):
            raise BIRError(
                "Expected a measure that compares with the set --reference, but none came; leave "
                "--reference out or add --metric fid."
            )
        for metric in metrics:
            _require_what_it_compares(metric, has_originals, has_reference)
        require_weights((file for metric in metrics for file in metric.files), settings.weights)
        self._measures = [(metric, metric.build(settings)) for metric in metrics]
        self._has_reference = has_reference
        self._rows: list[Row] = []
        # Of measures of sets: by metric and model, and of the set to compare with by metric.
        self._features: dict[tuple[str, str], list[Tensor]] = {}
        self._reference: dict[str, list[Tensor]] = {}

    def add(self, sample: Sample) -> None:
        """Measure a picture, as the 8-bit picture that would be saved.

        Raises:
            BIRError: too small for a metric, or it gives no number.
        """
        rows: list[Row] = []
        features: dict[tuple[str, str], Tensor] = {}
        for model, image in sample.restored.items():
            restored = (image.clamp(0, 1) * 255).round().cpu() / 255
            values: dict[str, float | None] = {}
            for metric, measure in self._measures:
                _require_side(metric, restored, sample.name)
                result = measure(restored, sample.hq)
                if metric.compares == "others":
                    features[metric.name, model] = result
                    values[metric.name] = None
                else:
                    values[metric.name] = _number(metric, float(result), sample.name)
            rows.append(Row(model, sample.name, values))
        # Only now, so that a picture counts for all models or for none.
        self._rows += rows
        for key, result in features.items():
            self._features.setdefault(key, []).append(result)
        if not self._has_reference and sample.hq is not None:
            self.add_reference(sample.hq)

    def add_reference(self, image: Tensor) -> None:
        """Add a picture (1, 3, H, W) to the set that measures of sets compare with."""
        for metric, measure in self._measures:
            if metric.compares == "others":
                self._reference.setdefault(metric.name, []).append(measure(image, None))

    def rows(self) -> list[Row]:
        """The rows of all pictures, and for each model one with the means and the measures of
        sets."""
        models = dict.fromkeys(row.model for row in self._rows)
        return [*self._rows, *(self._summary(model) for model in models)]

    def _summary(self, model: str) -> Row:
        own = [row.values for row in self._rows if row.model == model]
        values: dict[str, float | None] = {}
        for metric, _ in self._measures:
            if metric.compares == "others":
                features = self._features[metric.name, model]
                values[metric.name] = frechet_distance(
                    torch.cat(features), torch.cat(self._reference[metric.name])
                )
            else:
                numbers: list[Any] = [row[metric.name] for row in own]
                values[metric.name] = sum(numbers) / len(numbers)
        return Row(model, "mean", values)


def _require_what_it_compares(metric: Metric, has_originals: bool, has_reference: bool) -> None:
    if metric.compares == "original" and not has_originals:
        raise BIRError(
            f"Expected a folder of originals for {metric.name}, but none came; give HQ or choose "
            "measures that need none, such as --protocol diffbir-real."
        )
    if metric.compares == "others" and not (has_originals or has_reference):
        raise BIRError(
            f"Expected pictures to compare the results with for {metric.name}, but none came; give "
            "--reference or HQ."
        )


def _require_side(metric: Metric, image: Tensor, name: str) -> None:
    height, width = image.shape[-2:]
    if min(height, width) < metric.least_side:
        raise BIRError(
            f"Expected sides of at least {metric.least_side} pixels for {metric.name}, but {name} "
            f"is {width}x{height}; leave it or the measure out."
        )


def _number(metric: Metric, value: float, name: str) -> float:
    if math.isnan(value):
        raise BIRError(
            f"Expected a number from {metric.name}, but {name} gave none, as flat pictures can; "
            "leave it or the measure out."
        )
    return value
