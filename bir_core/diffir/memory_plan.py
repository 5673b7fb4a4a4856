"""How much memory DiffIR takes, and the strips in which a picture fits."""

import torch

from ..memory import USABLE, MemoryPlan, StagePlan
from ..networks.diffir_config import DiffIRConfig

# Pixels of a strip of the widest map. On a CPU the strip should stay in the caches: measured with
# the official sizes, 4000 pixels are fastest, half or twice as many cost a tenth, and 60000 half as
# much again. Below 4 rows, those that are carried from strip to strip cost more than the caches
# save. On other devices a strip should be long enough to hide the start of its kernels.
CPU_STRIP_PIXELS = 4096
DEVICE_STRIP_PIXELS = 2**20
FEWEST_FAST_ROWS = 4


def plan_strip(
    config: DiffIRConfig,
    height: int,
    width: int,
    batch: int,
    free_bytes: int,
    dtype: torch.dtype,
    device_type: str = "cpu",
) -> int:
    """Rows of a strip for `stream`: as many as are fast on the device, if they fit.

    Args:
        height, width: of the padded image, in pixels.
        batch: images; only their inputs and results add up, since each is computed alone.
        free_bytes: memory that may be used.
        dtype: of the image in the network.
        device_type: "cpu", "cuda", ...

    Returns:
        Rows of the working grid (image pixels divided by `config.unshuffle`), at least 1: less
        cannot be computed, so if even that does not fit the allocation fails later.
    """
    rows, columns = height // config.unshuffle, width // config.unshuffle
    whole, per_row, head = _numbers_in_memory(config, height, width, batch)
    usable = USABLE * free_bytes / dtype.itemsize - whole - head
    fitting = int(usable / max(per_row, head / 8))
    return max(1, min(fitting, _fastest_strip(rows, columns, device_type)))


def required_memory(
    config: DiffIRConfig, height: int, width: int, dtype: torch.dtype, device_type: str = "cpu"
) -> int:
    """Bytes of work space that let `restore` take its fastest strips for one image.

    Arguments as in `plan_strip`, whose plan for this much free memory it is; the image need not be
    padded yet.
    """
    height, width = (-side % config.size_multiple + side for side in (height, width))
    rows, columns = height // config.unshuffle, width // config.unshuffle
    strip = _fastest_strip(rows, columns, device_type)
    return int(strip_memory(config, height, width, strip + 1, dtype) / USABLE)


def strip_memory(
    config: DiffIRConfig, height: int, width: int, strip: int, dtype: torch.dtype
) -> int:
    """Bytes that `restore` takes for one padded image in strips of so many rows. Arguments as in
    `plan_strip`."""
    whole, per_row, head = _numbers_in_memory(config, height, width, batch=1)
    return int((whole + head + strip * max(per_row, head / 8)) * dtype.itemsize)


def _fastest_strip(rows: int, columns: int, device_type: str) -> int:
    pixels = CPU_STRIP_PIXELS if device_type == "cpu" else DEVICE_STRIP_PIXELS
    return min(rows, max(FEWEST_FAST_ROWS, pixels // columns))


def _numbers_in_memory(
    config: DiffIRConfig, height: int, width: int, batch: int
) -> tuple[float, float, float]:
    """How many numbers `stream` holds: maps and images, per row of a strip, and for the head."""
    rows, columns = height // config.unshuffle, width // config.unshuffle
    widest, hidden = 2 * config.dim, int(2 * config.dim * config.ffn_expansion_factor)
    # The U's maps: 2 dim on level 1; 2, 4 and 8 dim on levels 2 to 4 of 1/4, 1/16 and 1/64 pixels.
    maps = rows * columns * config.dim * (2 + 2 / 4 + 4 / 16 + 8 / 64)
    images = batch * height * width * (config.in_channels + 3 * config.scale**2)
    # Feed-forward: gate and value each before, in and after the depthwise convolution.
    per_row = columns * (8 * hidden + 6 * widest)
    # Head of super-resolution, for an eighth of the rows: three copies of its widest map.
    head = columns * 16 * widest * 4 if config.task == "sr" else 0
    return maps + images, per_row, head


def plan_diffir(
    config: DiffIRConfig,
    weights: int,
    height: int,
    width: int,
    *,
    dtype: torch.dtype,
    device: torch.device,
    memory: int,
) -> MemoryPlan:
    """The strips in which DiffIR restores one picture.

    Args:
        config, weights: of the network, and the bytes of its weights.
        height, width: of the picture.
        dtype: of the computation.
        device, memory: as in `plan_diffbir`.
    """
    multiple = config.size_multiple
    padded = (height + -height % multiple, width + -width % multiple)
    free = max(0, memory - int(weights / USABLE))
    rows = plan_strip(config, *padded, 1, free, dtype, device.type)
    work = strip_memory(config, *padded, rows, dtype)
    return MemoryPlan((StagePlan("restoring", 0, weights, work, rows=rows),), memory, memory)
