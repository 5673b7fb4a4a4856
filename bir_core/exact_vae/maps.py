"""Full maps that wait between two passes, their parts, and the statistics of their channels, which
are collected while they are written (Chan et al. 1983, "Algorithms for Computing the Sample
Variance")."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..memory import sent
from .mapped_files import mapped_tensor


class ParkingOverflow(ArithmeticError):
    """A finite number was too large for maps parked in float16; park in float32."""


@dataclass(frozen=True)
class Parking:
    """Where full maps wait between two passes, and in which type: float32 is exact, float16 takes
    half the memory at a loss of about an eighth of an 8-bit step.

    Attributes:
        device: in whose memory; the host for a file.
        dtype: of the maps.
        folder: of the files in which they wait; None for in memory.
    """

    device: torch.device
    dtype: torch.dtype
    folder: Path | None = None

    def __str__(self) -> str:
        place = f"on {self.device}" if self.folder is None else f"in a file in {self.folder}"
        return f"{place} in {self.dtype}"

    def empty(self, channels: int, height: int, width: int) -> Tensor:
        """Room for a map (channels, height, width).

        Raises:
            BIRError: the disk has no room for it.
        """
        shape = (channels, height, width)
        if self.folder is None:
            return torch.empty(shape, dtype=self.dtype, device=self.device)
        return mapped_tensor(shape, self.dtype, self.folder)


class Box(NamedTuple):
    """A rectangle of a map, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int


def boxes(height: int, width: int, side: int) -> Iterator[Box]:
    """A map cut into squares of `side`, row by row."""
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield Box(top, min(top + side, height), left, min(left + side, width))


def exactly(values: Tensor) -> Tensor:
    """In float64, which MPS does not have."""
    return values if values.device.type == "mps" else values.double()


class ParkedMap:
    """A full map (C, H, W) and the statistics of its channels, for one image."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        # (C,) float64, of the whole map, where it was computed; after `finish`.
        self.mean = torch.zeros(0)
        self.variance = torch.zeros(0)
        self.peak: Tensor | None = None  # scalar, of a map that is parked in float16
        self._moments: list[tuple[int, Tensor, Tensor]] = []
        self._peaks: list[Tensor] = []

    @classmethod
    def empty(cls, channels: int, height: int, width: int, parking: Parking) -> "ParkedMap":
        return cls(parking.empty(channels, height, width))

    def part(self, box: Box) -> Tensor:
        """A rectangle of the map, a view (C, h, w)."""
        return self.values[:, box.top : box.bottom, box.left : box.right]

    def write(self, part: Tensor, values: Tensor) -> None:
        """Put `values` (C, ...), float32, into a view of this map and count them."""
        # In two steps: torch.var_mean took a fifth of the whole time on a CPU.
        mean = values.mean(dim=(1, 2), keepdim=True)
        variance = (values - mean).square_().mean(dim=(1, 2))
        self._moments.append((values[0].numel(), mean[:, 0, 0], variance))
        if part.dtype == torch.float16:
            self._peaks.append(values.abs().amax())
        part.copy_(values)

    def finish(self) -> None:
        """Combine what was counted into the statistics of the whole map (Chan's formula for many
        parts, in float64 where the device has it)."""
        if self._peaks:
            self.peak = torch.stack(self._peaks).amax()
        counts = torch.tensor([count for count, _, _ in self._moments], dtype=torch.float64)
        means = exactly(torch.stack([mean for _, mean, _ in self._moments]))
        variances = exactly(torch.stack([variance for *_, variance in self._moments]))
        shares = sent(counts / counts.sum(), means)[:, None]
        self.mean = (shares * means).sum(0)
        self.variance = (shares * (variances + (means - self.mean) ** 2)).sum(0)
        self._moments, self._peaks = [], []
