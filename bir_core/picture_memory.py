"""Whether the pictures of a run fit into memory at all, whatever the pieces of its work: said
before the work starts, and not when it ends in vain."""

from collections.abc import Callable, Iterable

import psutil
import torch

from .errors import BIRError
from .memory import CPU, GIGABYTE, free_memory

RGB = 3 * 4  # bytes of a pixel in float32
# Enlargements to advise, the largest first.
_ENLARGEMENTS = (16, 12, 8, 6, 4, 3, 2, 1.5, 1)


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
