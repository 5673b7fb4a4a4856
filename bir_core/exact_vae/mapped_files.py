"""Tensors in temporary files that are mapped into memory: where they are too large for it.

The system reads and writes the pages of such a file as they are used, and keeps as many of them as
there is memory to spare. A file has no name, or loses its name as soon as it is open (on Windows it
is deleted when it is closed), so nothing stays behind, even after a kill.
"""

import errno
import math
import mmap
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch
from torch import Tensor

from ..errors import BIRError, shown_path
from ..memory import GIGABYTE

# File systems that are memory themselves.
_IN_MEMORY = ("tmpfs", "ramfs")
# Of POSIX, for large files that /tmp does not hold where it lies in memory.
_LARGE_FILES = Path("/var/tmp")


def files_folder(chosen: Path | None = None) -> Path:
    """Where such files lie: the chosen folder, or that of the system for temporary files, for large
    ones where the usual one lies in memory.

    Raises:
        BIRError: no folder, or one in memory, was chosen.
    """
    if chosen is None:
        usual = Path(tempfile.gettempdir())
        return _LARGE_FILES if _lies_in_memory(usual) and _LARGE_FILES.is_dir() else usual
    if not chosen.is_dir():
        raise BIRError(
            f"Expected a folder for the maps that memory does not hold, but {shown_path(chosen)} "
            "is none; make it or choose another."
        )
    if _lies_in_memory(chosen):
        raise BIRError(
            f"Expected a folder on a disk for the maps that memory does not hold, but "
            f"{shown_path(chosen)} lies in memory; choose another."
        )
    return chosen


def free_disk(folder: Path) -> int:
    """Bytes that files in a folder may still take; 0 where it lies in memory or is not there."""
    if not folder.is_dir() or _lies_in_memory(folder):
        return 0
    return shutil.disk_usage(folder).free


def _lies_in_memory(folder: Path) -> bool:
    if os.name != "posix":
        return False
    place = folder.resolve()
    around = [
        partition
        for partition in psutil.disk_partitions(all=True)
        if place.is_relative_to(partition.mountpoint)
    ]
    nearest = max(around, key=lambda each: len(each.mountpoint), default=None)
    return nearest is not None and nearest.fstype in _IN_MEMORY


def mapped_tensor(shape: Sequence[int], dtype: torch.dtype, folder: Path) -> Tensor:
    """A tensor in a file of its own, zeros at first; the file goes with the last view of it.

    Args:
        shape: of at least one number.
        folder: of the file.

    Raises:
        BIRError: the folder has no room for it, or lets no file be made.
    """
    count = math.prod(shape)
    size = count * dtype.itemsize
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                # The room is had now: a page without room would end the process later.
                os.posix_fallocate(file.fileno(), 0, size)
            elif free_disk(folder) < size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            else:
                file.truncate(size)
            pages = mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise BIRError(
            f"Expected room for {size / GIGABYTE:.1f} GB of maps in {shown_path(folder)}, but "
            f"{free_disk(folder) / GIGABYTE:.1f} GB are free ({error.strerror}); free some, or "
            "choose a folder on another disk."
        ) from error
    return torch.frombuffer(pages, dtype=dtype, count=count).view(*shape)
