"""How much the sampling of a picture computes, said before any work."""

from dataclasses import dataclass

from ..latents import PADDED_MULTIPLE
from ..tiling import tiles
from .settings import DiffBIRSettings
from .stage1 import Size, with_short_side


@dataclass(frozen=True)
class Effort:
    """What the sampling does.

    Attributes:
        tiles: of the picture, 1 for the whole.
        steps: of the sampler, each for every tile.
        prompts: that a step follows: 2 with the negative one.
    """

    tiles: int
    steps: int
    prompts: int

    @property
    def tile_steps(self) -> int:
        """How often UNet and IRControlNet run on a tile, with all its prompts."""
        return self.tiles * self.steps


def sampling_effort(settings: DiffBIRSettings, tile: int, output: Size) -> Effort:
    """The effort for a picture.

    Args:
        settings: of the run.
        tile: side in pixels of the tiles of the sampling, as the plan has it; 0 for the whole.
        output: height and width in pixels of the result.
    """
    condition = with_short_side(output, settings.short_side)
    height, width = (side + -side % PADDED_MULTIPLE for side in condition)
    count = len(tiles(height, width, tile, min(settings.overlap, tile // 2))) if tile else 1
    return Effort(count, settings.steps, 2 if settings.uses_negative else 1)
