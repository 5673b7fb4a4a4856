"""What a conditioning brings beside the prompt, as tiles of the latent see it."""

from collections.abc import Sequence

import comfy.utils
import torch
from torch import Tensor

from ...bir_core.tiling import Tile
from .protocols import ControlNet, ModelCond


def whole_hints(control: ControlNet, size: tuple[int, int]) -> tuple[Tensor, list[Tensor]]:
    """A control net's hint (B, C, H, W), and what it joins to it, at the size to which it would
    bring them for a whole latent of `size`."""
    height, width = size
    ratio = control.compression_ratio
    encoded = 1 if control.vae is None else control.vae.spacial_compression_encode()

    def fit(image: Tensor, ratio: int) -> Tensor:
        resized: Tensor = comfy.utils.common_upscale(
            image, width * ratio, height * ratio, control.upscale_algorithm, "center"
        )
        return resized

    hint = fit(control.cond_hint_original, ratio * encoded)
    return hint, [fit(extra, ratio) for extra in control.extra_concat_orig]


def of_tiles(tensor: Tensor, chosen: Sequence[Tile], batch: int, ratio: int = 1) -> Tensor:
    """The parts of (B, ..., H, W) that belong to tiles of the latent, tile by tile.

    A tensor of fewer samples than the batch is repeated in order. One tile keeps its number of
    samples.

    Args:
        ratio: pixels of the tensor per pixel of the latent.
    """
    parts = [Tile(*(ratio * number for number in piece)).crop(tensor) for piece in chosen]
    if len(chosen) == 1:
        return parts[0]
    return torch.cat([comfy.utils.repeat_to_batch_size(part, batch) for part in parts])


def crop_model_cond(
    value: ModelCond, size: tuple[int, int], chosen: Sequence[Tile], batch: int
) -> ModelCond:
    """What the model is told beside the latent: maps of the latent's size are cut, the rest is
    as it was."""
    told = value.cond
    if not isinstance(told, Tensor) or told.ndim != 4 or tuple(told.shape[-2:]) != size:
        return value
    return value._copy_with(of_tiles(told, chosen, batch))


def tile_area(area: Sequence[int], tile: Tile) -> list[int] | None:
    """An area (height, width, y, x) of the latent in the coordinates of a tile, None if it lies
    outside."""
    height, width, y, x = area
    top, left = max(y, tile.y), max(x, tile.x)
    bottom = min(y + height, tile.y + tile.height)
    right = min(x + width, tile.x + tile.width)
    if bottom <= top or right <= left:
        return None
    return [bottom - top, right - left, top - tile.y, left - tile.x]
