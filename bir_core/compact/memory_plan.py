"""How much memory the compact restoration module takes, and the strips in which a picture fits."""

import torch

from ..memory import USABLE, MemoryPlan, StagePlan
from ..networks.compact import CompactConfig

# Pixels of a strip. On a CPU it should stay in the caches; elsewhere it should be long enough to
# hide the start of the kernels.
CPU_STRIP_PIXELS = 8192
DEVICE_STRIP_PIXELS = 2**20
FEWEST_FAST_ROWS = 8


def plan_strip(
    config: CompactConfig,
    height: int,
    width: int,
    batch: int,
    free_bytes: int,
    dtype: torch.dtype,
    device_type: str = "cpu",
) -> int:
    """Rows of a strip for `stream`: as many as are fast on the device, if they fit.

    Args:
        height, width: of the image, in pixels.
        batch: images; only they and their results add up, since each is computed alone.
        free_bytes: memory that may be used.
        dtype: of the computation.
        device_type: "cpu", "cuda", ...

    Returns:
        At least 1: less cannot be computed, so if even that does not fit the allocation fails.
    """
    whole, per_row = _numbers_in_memory(config, height, width, batch)
    fitting = int((USABLE * free_bytes / dtype.itemsize - whole) / per_row)
    return max(1, min(fitting, _fastest_strip(height, width, device_type)))


def required_memory(
    config: CompactConfig, height: int, width: int, dtype: torch.dtype, device_type: str = "cpu"
) -> int:
    """Bytes of work space that let `restore_compact` take its fastest strips for one image.

    Arguments as in `plan_strip`, whose plan for this much free memory it is.
    """
    strip = _fastest_strip(height, width, device_type)
    return int(strip_memory(config, height, width, strip + 1, dtype) / USABLE)


def strip_memory(
    config: CompactConfig, height: int, width: int, strip: int, dtype: torch.dtype
) -> int:
    """Bytes that `restore_compact` takes for one image in strips of so many rows; arguments as in
    `plan_strip`."""
    whole, per_row = _numbers_in_memory(config, height, width, batch=1)
    return int((whole + strip * per_row) * dtype.itemsize)


def _fastest_strip(height: int, width: int, device_type: str) -> int:
    pixels = CPU_STRIP_PIXELS if device_type == "cpu" else DEVICE_STRIP_PIXELS
    return min(height, max(FEWEST_FAST_ROWS, pixels // width))


def _numbers_in_memory(
    config: CompactConfig, height: int, width: int, batch: int
) -> tuple[float, float]:
    """How many numbers `stream` holds whatever the strip, and for each row of a strip."""
    images = batch * height * width * 3 * (1 + config.scale**2)
    # Two rows of each layer's input, copied when the next ones come, and the weights in the order
    # of the rows.
    carried = 4 * width * config.features * (config.layers + 1)
    weights = 9 * config.features * (config.features * config.layers + 3 + 3 * config.scale**2)
    # A layer's input, the window around it and its output; the last one has those of the shuffle.
    widest = max(4 * config.features, config.features + 9 * config.scale**2)
    # The window around a strip has two rows more.
    return images + carried + weights + 2 * width * widest, width * widest


def plan_compact(
    config: CompactConfig,
    weights: int,
    height: int,
    width: int,
    *,
    dtype: torch.dtype,
    device: torch.device,
    memory: int,
) -> MemoryPlan:
    """The strips in which a compact restoration module restores one picture.

    Args:
        config, weights: of the network, and the bytes of its weights.
        height, width: of the picture.
        dtype: of the computation.
        device, memory: as in `plan_diffbir`.
    """
    free = max(0, memory - int(weights / USABLE))
    rows = plan_strip(config, height, width, 1, free, dtype, device.type)
    work = strip_memory(config, height, width, rows, dtype)
    return MemoryPlan((StagePlan("restoring", 0, weights, work, rows=rows),), memory, memory)
