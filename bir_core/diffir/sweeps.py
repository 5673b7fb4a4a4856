"""What DiffIR does to a picture, as a list of sweeps over maps, and the sizes of these maps: the
plan that `streaming` carries out strip by strip."""

from collections.abc import Iterator
from dataclasses import dataclass

from ..networks.diffir_config import DiffIRConfig
from .row_strips import strip_count


@dataclass(frozen=True)
class Blocks:
    """The blocks of a module of the DIRformer, in place on the map of a level."""

    module: str
    level: int
    count: int


@dataclass(frozen=True)
class Down:
    """From the map of a level, which waits for the way up, to that of the next one."""

    module: str
    level: int


@dataclass(frozen=True)
class Up:
    """From the map of a level, which ends here, into that of the level before, and `reduce` of both
    to its width; on the first level both lie side by side."""

    module: str
    level: int
    reduce: str | None


Step = Blocks | Down | Up


def dirformer_steps(config: DiffIRConfig) -> list[Step]:
    """What the DIRformer does between its embedding and its head, in order."""
    first, second, third, fourth = config.num_blocks
    steps: list[Step] = [
        Blocks("encoder_level1", 0, first),
        Down("down1_2", 0),
        Blocks("encoder_level2", 1, second),
        Down("down2_3", 1),
        Blocks("encoder_level3", 2, third),
        Down("down3_4", 2),
        Blocks("latent", 3, fourth),
        Up("up4_3", 3, "reduce_chan_level3"),
        Blocks("decoder_level3", 2, third),
        Up("up3_2", 2, "reduce_chan_level2"),
        Blocks("decoder_level2", 1, second),
        Up("up2_1", 1, None),
        Blocks("decoder_level1", 0, first),
    ]
    if config.corrects:
        steps.append(Blocks("refinement", 0, config.num_refinement_blocks))
    return steps


def map_size(config: DiffIRConfig, height: int, width: int, level: int) -> tuple[int, int, int]:
    """Rows, columns and channels of the map of a level for an image of (height, width) pixels. The
    first one has room for what comes up beside what was encoded."""
    channels = config.dim * 2 ** max(1, level)
    rows, columns = (side // config.unshuffle >> level for side in (height, width))
    return rows, columns, channels


def map_numbers(config: DiffIRConfig, height: int, width: int) -> int:
    """Numbers of all maps at the busiest moment."""
    alive = {0}
    most = 0
    for step in dirformer_steps(config):
        if isinstance(step, Down):
            alive.add(step.level + 1)
        numbers = 0
        for level in alive:
            rows, columns, channels = map_size(config, height, width, level)
            numbers += rows * columns * channels
        most = max(most, numbers)
        if isinstance(step, Up):
            alive.remove(step.level)
    return most


def head_strip(config: DiffIRConfig, strip: int) -> int:
    """Rows of a strip of the head: that of super-resolution works on a 16 times larger grid."""
    return max(1, strip // 8) if config.task == "sr" else strip


def _sweeps(config: DiffIRConfig, height: int, strip: int) -> Iterator[tuple[int, int]]:
    """Rows of the map, and of a strip, of each sweep over one image of `height` pixels."""
    first, *_ = map_size(config, height, 1, 0)
    yield height // config.prior_unshuffle, strip  # the prior
    yield first, strip  # the embedding
    for step in dirformer_steps(config):
        rows, *_ = map_size(config, height, 1, step.level)
        # A block sweeps once for its attention matrix, and once to apply it.
        for _ in range(2 * step.count if isinstance(step, Blocks) else 1):
            yield rows, strip
    yield first, head_strip(config, strip)


def strips_in_all(config: DiffIRConfig, height: int, strip: int) -> int:
    """Strips of all sweeps over one image of `height` pixels, with `strip` rows in each."""
    return sum(strip_count(rows, each) for rows, each in _sweeps(config, height, strip))
