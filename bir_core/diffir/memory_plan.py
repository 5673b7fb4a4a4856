"""How much memory DiffIR takes, and the strips in which a picture fits."""

from ..memory import StripMemory, fastest_rows
from ..networks.diffir_config import DiffIRConfig
from .sweeps import map_numbers

# Pixels of a strip of the widest map. On a CPU the strip should stay in the caches: measured with
# the official sizes, 4000 pixels are fastest, half or twice as many cost a tenth, and 60000 half as
# much again. Below 4 rows, those that are carried from strip to strip cost more than the caches
# save. On other devices a strip should be long enough to hide the start of its kernels.
CPU_STRIP_PIXELS = 4096
DEVICE_STRIP_PIXELS = 2**20
FEWEST_FAST_ROWS = 4


def diffir_strips(
    config: DiffIRConfig, height: int, width: int, batch: int = 1, device_type: str = "cpu"
) -> StripMemory:
    """What `restore` takes. A strip's rows are those of the working grid: image pixels divided by
    `config.unshuffle`.

    Args:
        height, width: of the padded image, in pixels.
        batch: images; only their inputs and results add up, since each is computed alone.
        device_type: "cpu", "cuda", ...
    """
    rows, columns = height // config.unshuffle, width // config.unshuffle
    widest, hidden = 2 * config.dim, int(2 * config.dim * config.ffn_expansion_factor)
    maps = map_numbers(config, height, width)
    images = batch * height * width * (config.in_channels + 3 * config.scale**2)
    # Feed-forward: gate and value each before, in and after the depthwise convolution.
    per_row = columns * (8 * hidden + 6 * widest)
    # Head of super-resolution, for an eighth of the rows: three copies of its widest map.
    head = columns * 16 * widest * 4 if config.task == "sr" else 0
    pixels = CPU_STRIP_PIXELS if device_type == "cpu" else DEVICE_STRIP_PIXELS
    return StripMemory(
        whole=maps + images + head,
        per_row=max(per_row, head / 8),
        fastest=fastest_rows(rows, columns, pixels, FEWEST_FAST_ROWS),
    )


def padded(config: DiffIRConfig, height: int, width: int) -> tuple[int, int]:
    """The sides of the image that the network sees."""
    multiple = config.size_multiple
    return height + -height % multiple, width + -width % multiple
