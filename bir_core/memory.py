"""How much memory there is, what a run takes of it, whether pictures fit at all, recognising
that it has run out, and bringing tensors to a device."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor, nn

from .errors import BIRError

CPU = torch.device("cpu")
GIGABYTE = 1e9
# Part of the free memory that a plan uses; the rest is for the libraries' own work space.
USABLE = 0.8
RGB = 3 * 4  # bytes of a pixel in float32
# Enlargements to advise, the largest first.
_ENLARGEMENTS = (16, 12, 8, 6, 4, 3, 2, 1.5, 1)

# What torch says on CUDA and MPS, on Linux and macOS, and on Windows; then the allocators of C++,
# oneDNN, which has no words for the reason, and cuBLAS and cuDNN.
_OUT_OF_MEMORY = (
    *("out of memory", "allocate memory", "not enough memory"),
    *("bad_alloc", "bad allocation"),
    *("could not create a primitive", "could not create a memory"),
    "status_alloc_failed",
)


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


def picture_bytes(height: float, width: float, pictures: float) -> float:
    """Bytes of so many RGB pictures in float32."""
    return RGB * height * width * pictures


def require_room(
    height: int,
    width: int,
    scale: float,
    needed: Callable[[float], float],
    devices: Iterable[torch.device] = (CPU,),
    name: str = "A picture",
) -> None:
    """Say before the work that a picture cannot fit.

    Args:
        height, width: of the picture.
        scale: sides of the result by its own.
        needed: from the scale to the least bytes that the run takes besides what is there already.
        devices: those whose memory together can be had for it; the host's with what may be swapped.
        name: of the picture, for the sentence.

    Raises:
        BIRError: it takes more than that.
    """
    bytes_needed, free = needed(scale), sum(_obtainable(device) for device in set(devices))
    if bytes_needed <= free:
        return
    fitting = (each for each in _ENLARGEMENTS if each < scale and needed(each) <= free)
    smaller = next(fitting, None)
    advice = "" if smaller is None else f"enlarge it {smaller:g} times at the most, or "
    raise BIRError(
        f"{name} of {width} x {height} pixels should fit into the memory with its result, which "
        f"is {scale:g} times as large, but the work needs {bytes_needed / GIGABYTE:.1f} GB of "
        f"{free / GIGABYTE:.1f} GB; {advice}cut it into tiles and restore these."
    )


def _obtainable(device: torch.device) -> int:
    free = free_memory(device)
    return free + psutil.swap_memory().free if device.type == "cpu" else free


@dataclass(frozen=True)
class StagePlan:
    """One stage of a run; memory in bytes.

    Attributes:
        name: "stage 1", "encoding", "sampling", "decoding", "restoring" with one network, or
            "writing".
        tile: side of its pieces in pixels; 0 for the whole picture.
        weights: of the networks that lie on the computing device meanwhile.
        work: everything else there.
        parked: feature maps and pictures that wait in the host's memory.
        filed: feature maps that wait in a file.
        moved: bytes that are written to this file and read from it.
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
    filed: int = 0
    moved: int = 0

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
        host_memory: bytes of the host, for what is parked.
        disk: bytes that files may take.
        images: pictures of a batch that are restored at a time.
    """

    stages: tuple[StagePlan, ...]
    memory: int
    host_memory: int
    images: int = 1
    disk: int = 0

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
        return not self._host_is_short and self.filed <= self.disk and self.needed <= self.memory

    @property
    def price_of_file(self) -> str:
        """What a file takes of disk and time, in words; empty without one."""
        if not self.filed:
            return ""
        moved = sum(stage.moved for stage in self.stages)
        return (
            f"file: {self.filed / GIGABYTE:.1f} GB of the disk, gone after the run; "
            f"{moved / GIGABYTE:.0f} GB are written and read, {moved / GIGABYTE / 60:.0f} min at "
            "1 GB a second, less where the system keeps parts of it in memory"
        )

    @property
    def filed(self) -> int:
        """Bytes of the disk that it needs."""
        return max(stage.filed for stage in self.stages)

    def verdict(self, device: str) -> str:
        """Whether it fits, and what decides that, in words; `device` names its memory."""
        stage, needed, memory, where = self.largest, self.needed, self.memory, device
        if self._host_is_short and needed <= memory:
            stage, needed, memory = self._most_parked, self._parked, self.host_memory
            where = "memory of the computer"
        elif self.filed > self.disk and needed <= memory:
            stage = max(self.stages, key=lambda stage: stage.filed)
            needed, memory, where = stage.filed, self.disk, "free disk"
        return (
            f"{'fits' if self.fits else 'does not fit'}: {stage.name} needs "
            f"{needed / GIGABYTE:.1f} GB of the {memory / GIGABYTE:.1f} GB {where}"
        )

    @property
    def _most_parked(self) -> StagePlan:
        return max(self.stages, key=lambda stage: stage.parked)

    @property
    def _parked(self) -> int:
        """Bytes that the host should have."""
        return int(self._most_parked.parked / USABLE)

    @property
    def _host_is_short(self) -> bool:
        return self._parked > self.host_memory

    def __str__(self) -> str:
        pieces = ", ".join(f"{stage.name} {stage.pieces}" for stage in self.stages)
        filed = f", and a file of {self.filed / GIGABYTE:.1f} GB" if self.filed else ""
        return f"{pieces}; {self.needed / GIGABYTE:.1f} of {self.memory / GIGABYTE:.1f} GB{filed}"

    def stage(self, name: str) -> StagePlan:
        return next(stage for stage in self.stages if stage.name == name)


@dataclass(frozen=True)
class StripMemory:
    """What a network takes that goes through a picture in strips of rows.

    Attributes:
        whole: numbers that it holds whatever the strip.
        per_row: numbers for each row of a strip.
        fastest: rows of a strip that are fast on the device.
    """

    whole: float
    per_row: float
    fastest: int

    def rows(self, free_bytes: int, dtype: torch.dtype) -> int:
        """Rows of a strip: as many as are fast, if they fit into the memory that may be used. At
        least 1: less cannot be computed, so if even that does not fit the allocation fails."""
        fitting = int((USABLE * free_bytes / dtype.itemsize - self.whole) / self.per_row)
        return max(1, min(fitting, self.fastest))

    def needed(self, rows: int, dtype: torch.dtype) -> int:
        """Bytes for strips of so many rows."""
        return int((self.whole + rows * self.per_row) * dtype.itemsize)

    def free_for(self, rows: int | None, dtype: torch.dtype) -> int:
        """Bytes that should be free for strips of so many rows; None for which `rows` gives the
        fastest strips."""
        return int(self.needed(rows or self.fastest + 1, dtype) / USABLE)

    def plan(self, weights: int, memory: int, dtype: torch.dtype) -> MemoryPlan:
        """The plan of a restoration that is nothing else.

        Args:
            weights: of the network, in bytes.
            memory: bytes of the device that the run may use, weights included.
        """
        rows = self.rows(max(0, memory - int(weights / USABLE)), dtype)
        stage = StagePlan("restoring", 0, weights, self.needed(rows, dtype), rows=rows)
        return MemoryPlan((stage,), memory, memory)


def fastest_rows(rows: int, columns: int, pixels: int, fewest: int) -> int:
    """Rows of a strip of about so many pixels, but not fewer than `fewest` where there are as
    many."""
    return min(rows, max(fewest, pixels // columns))


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
            empty_caches()


def empty_caches() -> None:
    """Give back what the allocators of the devices keep for later."""
    torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def sent(tensor: Tensor, like: Tensor) -> Tensor:
    """A tensor of the host in the type and on the device of another, without waiting for it.

    CUDA copies pinned memory in its turn, behind what is queued; an ordinary copy would let the
    host wait until the device has done all of that.
    """
    if like.device.type == "cuda":
        return tensor.to(like.dtype).pin_memory().to(like.device, non_blocking=True)
    return tensor.to(like)
