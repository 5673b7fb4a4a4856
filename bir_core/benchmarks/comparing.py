"""Sides that do the same work, measured against each other in one process.

What a side costs is counted in a run of its own; then the timed runs of all sides alternate, so
that whatever else the machine does meets all of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from ..errors import BIRError, OutOfMemory
from ..memory import is_out_of_memory
from .measuring import peak_memory_of, seconds_of
from .tensor_memory import cost_of


@dataclass(frozen=True)
class Side:
    """One way to do the work.

    Attributes:
        call: does it, and returns the result.
        counted: whether its operations go through torch's dispatcher one by one, so that they and
            their tensors can be counted. Those of a compiled network do not.
    """

    name: str
    call: Callable[[], Tensor]
    counted: bool = True


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was found of a side. None stands for what was not measured.

    Attributes:
        seconds: the median of the timed runs.
        faster: how many times as fast as the first side.
        extra: peak bytes above what was there before: on CUDA what the allocator gave out,
            elsewhere the tensors that the run made.
        operations: as of `Cost`.
        difference: the largest to the first side's result, relative to that one's largest number.
        runs: how many were timed.
        pixels: of the result.
        note: why there are no numbers.
    """

    side: str
    seconds: float | None = None
    faster: float | None = None
    extra: int | None = None
    operations: int | None = None
    difference: float | None = None
    runs: int = 0
    pixels: int | None = None
    note: str | None = None


@dataclass(frozen=True)
class _Counted:
    result: Tensor
    extra: int | None
    operations: int | None


def compare(sides: Sequence[Side], device: torch.device, repeats: int) -> list[Measured]:
    """Measure the sides, the first of which is what the others are compared with.

    A side that raises a BIRError, or runs out of memory, gets a note in place of numbers, and the
    others go on.
    """
    counted: dict[str, _Counted] = {}
    lacking: dict[str, str] = {}
    for side in sides:
        try:
            counted[side.name] = _count(side, device)
        except (BIRError, RuntimeError, MemoryError) as error:
            if isinstance(error, OutOfMemory) or is_out_of_memory(error):
                lacking[side.name] = "out of memory"
            elif isinstance(error, BIRError):
                lacking[side.name] = str(error)
            else:
                raise
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    for _ in range(repeats):
        for side in sides:
            if side.name not in lacking:
                seconds[side.name].append(seconds_of(side.call, device))
    first = sides[0].name
    return [
        Measured(side=side.name, note=lacking[side.name])
        if side.name in lacking
        else _measured(side.name, seconds, counted, first)
        for side in sides
    ]


def _count(side: Side, device: torch.device) -> _Counted:
    extra = operations = None
    if side.counted:
        result, cost = cost_of(side.call)
        extra, operations = cost.tensors, cost.operations
    else:
        result = side.call()
    if device.type == "cuda":
        _, extra, _ = peak_memory_of(side.call, device)
    return _Counted(result.detach().float().cpu(), extra, operations)


def _measured(
    name: str, seconds: dict[str, list[float]], counted: dict[str, _Counted], first: str
) -> Measured:
    own = median(seconds[name])
    faster = difference = None
    if first in counted:
        faster = median(seconds[first]) / own
        base = counted[first].result
        difference = float((counted[name].result - base).abs().max() / base.abs().max())
    return Measured(
        side=name,
        seconds=own,
        faster=faster,
        extra=counted[name].extra,
        operations=counted[name].operations,
        difference=difference,
        runs=len(seconds[name]),
        pixels=counted[name].result.shape[-2:].numel(),
    )
