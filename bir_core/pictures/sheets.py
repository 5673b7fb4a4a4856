"""Sheets that show pictures beside each other: each whole, one detail of it, and what was measured.

Made with Pillow, which ComfyUI and this package both require.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from ..images import from_channels_last, resize, to_channels_last
from ..metrics import rgb_to_y
from ..tiling import Tile

MARGIN = 12
LABEL_HEIGHT = 34
# The detail's sides by those of the picture.
DETAIL_PART = 5
# Edges are counted at a quarter of the size: finer grain cannot be restored by any method.
EDGE_SCALE = 4
# Sides of pictures from which they have a detail, and from which it is found at that scale.
SMALLEST_WITH_DETAIL = 16
SMALLEST_SCALED = 64
# Least and most pixels of a column's width: less has no room for texts, more none for columns.
COLUMN = (320, 640)
# Height of a column's picture by its width, at the most.
TALLEST = 1.5

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Panel:
    """A column of a sheet.

    Attributes:
        image: (1, 3, H, W) in [0, 1]; all panels of a sheet have the same size.
        title: above it.
        lines: below it.
    """

    image: Tensor
    title: str
    lines: tuple[str, ...] = ()


def detail_window(image: Tensor) -> Tile:
    """The part of a picture (1, 3, H, W) with the most edges in luma, a `DETAIL_PART` of its sides;
    all of a very small one."""
    height, width = image.shape[-2:]
    smallest = min(height, width)
    if smallest < SMALLEST_WITH_DETAIL:
        return Tile(0, 0, height, width)
    scale = EDGE_SCALE if smallest >= SMALLEST_SCALED else 1
    rows, columns = height // DETAIL_PART, width // DETAIL_PART
    luma = rgb_to_y(resize(image, height // scale, width // scale, "area"))
    change = (luma[..., 1:, 1:] - luma[..., :-1, 1:]).abs()
    change = change + (luma[..., 1:, 1:] - luma[..., 1:, :-1]).abs()
    amount = F.avg_pool2d(change, (rows // scale - 1, columns // scale - 1), stride=1)
    top, left = divmod(int(amount.argmax()), amount.shape[-1])
    return Tile(top * scale, left * scale, rows, columns)


def usual_column(image: Tensor) -> int:
    """Pixels of a column's width that suit a picture."""
    least, most = COLUMN
    return max(least, min(most, image.shape[-1]))


def sheet(panels: Sequence[Panel], detail: Tile, column: int) -> Tensor:
    """Pictures beside each other, below each the same detail of it, enlarged.

    Args:
        panels: at least one.
        detail: the part of them; a yellow frame shows where it is.
        column: pixels of a column's width.

    Returns:
        (1, 3, H', W') in [0, 1].
    """
    whole = _fitting(panels[0].image.shape[-2], panels[0].image.shape[-1], column)
    enlarged = _fitting(detail.height, detail.width, column)
    # Small pictures get small letters, so that the texts stay beside each other.
    large_letters, small_letters = (max(8, min(most, column // 22)) for most in (24, 16))
    font, small = ImageFont.load_default(large_letters), ImageFont.load_default(small_letters)
    line_height = small_letters * 3 // 2
    lines = max(len(panel.lines) for panel in panels)
    size = (
        len(panels) * (column + MARGIN) + MARGIN,
        whole[0] + enlarged[0] + LABEL_HEIGHT + 3 * MARGIN + lines * line_height,
    )
    drawing = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(drawing)
    for index, panel in enumerate(panels):
        x, y = MARGIN + index * (column + MARGIN), MARGIN + LABEL_HEIGHT
        draw.text((x, MARGIN), _shortened(panel.title, column, font, draw), "black", font)
        picture = _to_pillow(panel.image)
        across, down = whole[1] / picture.width, whole[0] / picture.height
        drawing.paste(_resized(picture, whole), (x, y))
        left, top = x + int(detail.x * across), y + int(detail.y * down)
        right = left + max(1, int(detail.width * across)) - 1
        bottom = top + max(1, int(detail.height * down)) - 1
        draw.rectangle((left, top, right, bottom), outline="yellow", width=2)
        y += whole[0] + MARGIN
        drawing.paste(_resized(_to_pillow(detail.crop(panel.image)), enlarged), (x, y))
        y += enlarged[0]
        for number, line in enumerate(panel.lines):
            place = (x, y + number * line_height)
            draw.text(place, _shortened(line, column, small, draw), "black", small)
    return from_channels_last(torch.from_numpy(np.asarray(drawing, np.float32))[None] / 255)


def _fitting(height: int, width: int, column: int) -> tuple[int, int]:
    """Height and width in a column of a picture of so many pixels."""
    factor = min(column / width, TALLEST * column / height)
    return max(1, round(height * factor)), max(1, round(width * factor))


def _resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    height, width = size
    return picture if picture.size == (width, height) else picture.resize((width, height))


def _to_pillow(image: Tensor) -> Image.Image:
    samples = (to_channels_last(image)[0].clamp(0, 1) * 255).round().byte()
    return Image.fromarray(samples.cpu().numpy())


def _shortened(text: str, width: int, font: Font, draw: ImageDraw.ImageDraw) -> str:
    """A text as it is, or its beginning and three dots where it is wider than a column."""
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(f"{text}...", font) > width:
        text = text[:-1]
    return f"{text}..."
