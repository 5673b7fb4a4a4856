"""Which part of a picture is trained on."""

import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...images import pad_to_multiple
from ..recipe import Augmentation, Crop
from .draws import draw_integer
from .places import places_window

# The `resized` crop keeps at least this share of the short side.
SMALLEST_SHARE = 0.7


def cut_pair(
    hq: Tensor,
    lq: Tensor,
    side: int,
    scale: int,
    augmentation: Augmentation,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """A random window of a pair, on the grid of lq, flipped and turned.

    Args:
        hq, lq: (3, H, W) and (3, h, w), uint8 or float in [0, 1].
        side: of the window in hq, in pixels; smaller pictures are continued by reflection.
        scale: size of hq divided by size of lq.
        augmentation: see `DataRecipe`.

    Returns:
        Windows (3, side, side) and (3, side / scale, side / scale).
    """
    small = side // scale
    top, left = _draw_corner(lq, small, generator)
    turn = draw_turn(augmentation, generator)
    lq, hq = _window(lq, top, left, small), _window(hq, top * scale, left * scale, side)
    return turn(hq), turn(lq)


def cut_picture(
    hq: Tensor, side: int, crop: Crop, augmentation: Augmentation, generator: torch.Generator
) -> Tensor:
    """A square part of a picture, flipped and turned.

    Args:
        hq: (3, H, W), uint8 or float in [0, 1].
        side: of the result in pixels.
        crop, augmentation: see `DataRecipe`.

    Returns:
        (3, side, side), of the same type; float after the augmentation "places".
    """
    if augmentation == "places":
        return places_window(hq, side, generator)
    if crop == "center":
        hq = resize_short_side(hq, side)
        top, left = (hq.shape[1] - side) // 2, (hq.shape[2] - side) // 2
    else:
        if crop == "resized":
            largest = math.ceil(side / SMALLEST_SHARE)
            hq = resize_short_side(hq, side + draw_integer(largest - side + 1, generator))
        top, left = _draw_corner(hq, side, generator)
    turn = draw_turn(augmentation, generator)
    return turn(_window(hq, top, left, side))


def resize_short_side(image: Tensor, size: int) -> Tensor:
    """Resize a picture (3, H, W) so that its short side has `size` pixels: halve it by means over
    2 x 2 pixels while the short side is at least twice that, then interpolate bicubically, both as
    Pillow does (the loader of DiffBIR's CodeFormer-type degradation)."""
    height, width = image.shape[1:]
    while min(height, width) >= 2 * size:
        height, width = height // 2, width // 2
        image = _resize(image, height, width, Image.Resampling.BOX)
    scale = size / min(height, width)
    return _resize(image, round(height * scale), round(width * scale), Image.Resampling.BICUBIC)


def _resize(image: Tensor, height: int, width: int, filter: Image.Resampling) -> Tensor:
    # Pillow has no colour pictures of floating point, but single channels.
    channels = [
        np.asarray(Image.fromarray(channel).resize((width, height), filter))
        for channel in image.numpy()
    ]
    resized = torch.from_numpy(np.stack(channels))
    return resized.clamp(0, 1) if resized.is_floating_point() else resized


def _draw_corner(image: Tensor, side: int, generator: torch.Generator) -> tuple[int, int]:
    rows, columns = image.shape[1:]
    top = draw_integer(max(rows - side, 0) + 1, generator)
    return top, draw_integer(max(columns - side, 0) + 1, generator)


def _window(image: Tensor, top: int, left: int, side: int) -> Tensor:
    return pad_to_multiple(image[:, top : top + side, left : left + side][None], side)[0]


def draw_turn(augmentation: Augmentation, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Draw a flip or turn; the result applies it to an image (3, H, W)."""
    flip_columns, flip_rows, transpose = (torch.rand(3, generator=generator) < 0.5).tolist()
    flip_columns = flip_columns and augmentation != "none"
    flip_rows = flip_rows and augmentation == "dihedral"
    transpose = transpose and augmentation == "dihedral"

    def turn(image: Tensor) -> Tensor:
        axes = [axis for axis, flipped in ((1, flip_rows), (2, flip_columns)) if flipped]
        image = image.flip(axes) if axes else image
        return (image.transpose(1, 2) if transpose else image).contiguous()

    return turn


def paired_crop(
    lq: Tensor, hq: Tensor, patch: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One random window, the same for the whole batch; `patch` in pixels of hq (B, 3, H, W)."""
    scale = hq.shape[-1] // lq.shape[-1]
    side = patch // scale
    if lq.shape[-2] == lq.shape[-1] == side:
        return lq, hq
    top = draw_integer(lq.shape[-2] - side + 1, generator)
    left = draw_integer(lq.shape[-1] - side + 1, generator)
    lq = lq[..., top : top + side, left : left + side]
    top, left = top * scale, left * scale
    return lq.contiguous(), hq[..., top : top + patch, left : left + patch].contiguous()
