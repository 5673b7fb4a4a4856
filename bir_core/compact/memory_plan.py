"""How much memory the compact restoration module takes, and the strips in which a picture fits."""

from itertools import pairwise

from ..memory import StripMemory, fastest_rows
from ..networks.compact import KERNEL, CompactConfig

# Pixels of a strip. On a CPU it should stay in the caches; elsewhere it should be long enough to
# hide the start of the kernels.
CPU_STRIP_PIXELS = 8192
DEVICE_STRIP_PIXELS = 2**20
FEWEST_FAST_ROWS = 8


def compact_strips(
    config: CompactConfig, height: int, width: int, batch: int = 1, device_type: str = "cpu"
) -> StripMemory:
    """What `restore_compact` takes.

    Args:
        height, width: of the image, in pixels.
        batch: images; only they and their results add up, since each is computed alone.
        device_type: "cpu", "cuda", ...
    """
    images = batch * height * width * 3 * (1 + config.scale**2)
    # Two rows of each layer's input, copied when the next ones come, and the weights in the order
    # of the rows.
    carried = 4 * width * sum(config.channels[1:-1])
    weights = KERNEL**2 * sum(first * second for first, second in pairwise(config.channels))
    # A layer's input, the window around it and its output; the last one has those of the shuffle.
    per_row = width * max(4 * config.features, config.features + 9 * config.scale**2)
    pixels = CPU_STRIP_PIXELS if device_type == "cpu" else DEVICE_STRIP_PIXELS
    return StripMemory(
        # The window around a strip has two rows more.
        whole=images + carried + weights + 2 * per_row,
        per_row=per_row,
        fastest=fastest_rows(height, width, pixels, FEWEST_FAST_ROWS),
    )
