"""How much memory there is, what a run takes of it, and recognising that it has run out."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch
from torch import nn

CPU = torch.device("cpu")
GIGABYTE = 1e9
# Part of the free memory that a plan uses; the rest is for the libraries' own work space.
USABLE = 0.8

# What torch says on CUDA and MPS, on Linux and macOS, and on Windows.
_OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that an allocation failed, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error).lower() for words in _OUT_OF_MEMORY
    )


def free_memory(device: torch.device) -> int:
    """Bytes that can be allocated on a device now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return int(psutil.virtual_memory().available)


@dataclass(frozen=True)
class StagePlan:
    """One stage of a run; memory in bytes.

    Attributes:
        name: "stage 1", "encoding", "sampling", "decoding", or "restoring" for DiffIR.
        tile: side of its pieces in pixels; 0 for the whole picture.
        weights: of the networks that lie on the computing device meanwhile.
        work: everything else there.
        parked: feature maps that wait in the host's memory.
        tile_batch: tiles that are computed at a time.
        rows: of a strip, for DiffIR.
    """

    name: str
    tile: int
    weights: int
    work: int
    parked: int = 0
    tile_batch: int = 1
    rows: int = 0

    @property
    def memory(self) -> int:
        """Bytes on the computing device."""
        return self.weights + self.work

    @property
    def pieces(self) -> str:
        """Its pieces in words."""
        if self.rows:
            return f"strips of {self.rows} rows"
        if not self.tile:
            return "whole"
        batch = f", {self.tile_batch} at a time" if self.tile_batch > 1 else ""
        return f"tiles of {self.tile}{batch}"


@dataclass(frozen=True)
class MemoryPlan:
    """What a run takes of a device.

    Attributes:
        stages: in order.
        memory: bytes of the device that the run may use, weights included.
        host_memory: bytes of the host, for maps that are parked.
        images: pictures of a batch that are restored at a time.
    """

    stages: tuple[StagePlan, ...]
    memory: int
    host_memory: int
    images: int = 1

    @property
    def largest(self) -> StagePlan:
        """The stage that takes most of the device."""
        return max(self.stages, key=lambda stage: stage.memory)

    @property
    def needed(self) -> int:
        """Bytes that the device should have for it, with what is left to libraries."""
        return int(self.largest.memory / USABLE)

    @property
    def fits(self) -> bool:
        parked = max(stage.parked for stage in self.stages)
        return self.needed <= self.memory and parked <= USABLE * self.host_memory

    def __str__(self) -> str:
        pieces = ", ".join(f"{stage.name} {stage.pieces}" for stage in self.stages)
        return f"{pieces}; {self.needed / GIGABYTE:.1f} of {self.memory / GIGABYTE:.1f} GB"

    def stage(self, name: str) -> StagePlan:
        return next(stage for stage in self.stages if stage.name == name)


def weight_bytes(*networks: nn.Module | None, on: torch.device | None = None) -> int:
    """Memory of the weights and buffers of networks: wherever they lie, or on one kind of
    device."""
    tensors = [
        tensor
        for network in networks
        if network is not None
        for tensor in (*network.parameters(), *network.buffers())
    ]
    return sum(
        tensor.numel() * tensor.dtype.itemsize
        for tensor in tensors
        if on is None or tensor.device.type == on.type
    )


def dtype_of(network: nn.Module) -> torch.dtype:
    """The type of a network's weights."""
    return next(network.parameters()).dtype


@contextmanager
def visiting(device: torch.device, *networks: nn.Module | None) -> Iterator[None]:
    """Networks on a device for as long as this lasts; then on the host, and their memory free."""
    moved = [network for network in networks if network is not None]
    try:
        for network in moved:
            network.to(device)
        yield
    finally:
        for network in moved:
            network.to(CPU)
        if moved:
            _empty_cache(device)


def _empty_cache(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
