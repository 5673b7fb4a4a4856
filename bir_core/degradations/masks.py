"""Holes for inpainting: thick strokes and boxes (Suvorov et al., "Resolution-robust Large Mask
Inpainting with Fourier Convolutions" (LaMa), WACV 2022, section 2.4 and supplement), with the
parameters of DiffIR's training and tests.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BIRError
from ..images import resize
from .degradation import Degradation, Degraded, Randomness
from .draws import chance, require_probability

Counts = tuple[int, int]
# A stroke's segments leave in one of four directions, 0.01, 1.01, 2.01 or 3.01 radians.
DIRECTIONS = 4
MOST_SEGMENTS = 5
SHORTEST, THINNEST = 10, 5


def require_counts(name: str, bounds: Counts, lowest: int) -> None:
    """Raise BIRError unless lowest <= low <= high."""
    low, high = bounds
    if not lowest <= low <= high:
        raise BIRError(
            f"{name} should be (low, high) from {lowest} on, but ({low}, {high}) came; "
            "change the preset."
        )


def draw_count(bounds: Counts, generator: torch.Generator) -> int:
    """A whole number, all from low to high equally likely."""
    low, high = bounds
    return int(torch.randint(low, high + 1, (), generator=generator))


@dataclass(frozen=True, kw_only=True)
class StrokeMasks:
    """Broken lines of one to five segments.

    Attributes:
        strokes: how many.
        lengths: a segment has 10 pixels and up to this number less 1 more.
        widths: and is 5 pixels wide and up to this number less 1 more.
    """

    strokes: Counts
    lengths: int
    widths: int

    def __post_init__(self) -> None:
        require_counts("strokes", self.strokes, 1)
        require_counts("lengths", (1, self.lengths), 1)
        require_counts("widths", (1, self.widths), 1)


@dataclass(frozen=True, kw_only=True)
class BoxMasks:
    """Rectangles.

    Attributes:
        boxes: how many.
        sides: in pixels.
        margin: pixels at the border of the picture that stay free.
    """

    boxes: Counts
    sides: Counts
    margin: int

    def __post_init__(self) -> None:
        require_counts("boxes", self.boxes, 1)
        require_counts("sides", self.sides, 1)
        require_counts("margin", (0, self.margin), 0)


class HoleDegradation(Degradation):
    """Cuts a hole: lq gets a fourth channel, 1 in the hole, and is black there. The size stays."""

    @property
    def cuts_holes(self) -> bool:
        """True."""
        return True

    def with_scale(self, scale: int) -> "HoleDegradation":
        """The same. Raises BIRError unless the scale is 1."""
        if scale != 1:
            raise BIRError(
                f"A preset that cuts holes keeps the size of a picture, but a scale of {scale} "
                "came; leave it out."
            )
        return self


@dataclass(frozen=True, kw_only=True)
class MaskDegradation(HoleDegradation):
    """Thick strokes and boxes.

    Attributes:
        strokes, boxes: what a hole is made of, one or the other; None: never of boxes.
        box_probability: of the boxes.
        side: the shorter side of the pictures that all lengths count for; in a larger picture the
            strokes and boxes are larger.
        test: the protocol of the test sets: the picture is resized so that its shorter side is
            `side`, a square is cut that overlaps the hole, and a hole that covers more than half of
            the square is drawn again.
    """

    strokes: StrokeMasks
    boxes: BoxMasks | None = None
    box_probability: float = 0.0
    side: int
    test: bool = False

    def __post_init__(self) -> None:
        require_probability("box_probability", self.box_probability)
        require_counts("side", (1, self.side), 1)
        if (self.boxes is None) != (self.box_probability == 0):
            raise BIRError(
                "A mask preset should have boxes and their probability or neither, but "
                f"{self.boxes} and {self.box_probability:g} came; change the preset."
            )

    def degrade(self, hq: Tensor, random: Randomness) -> Degraded:
        """A hole for each image."""
        cut = (cut_hole(image[None], self, random.generator) for image in hq)
        lq, target, drawn = zip(*cut, strict=True)
        random.drawn["holes"] = list(drawn)
        return Degraded(torch.cat(lq), torch.cat(target), random.drawn)


@dataclass(frozen=True)
class Segment:
    """A straight piece of a stroke, in pixels from the centre of the top left one."""

    start: tuple[int, int]  # x, y
    end: tuple[int, int]
    width: int


def draw_segments(
    parameters: StrokeMasks, size: tuple[int, int], unit: float, generator: torch.Generator
) -> list[Segment]:
    """Draw the strokes of a mask.

    Args:
        size: height and width of the picture.
        unit: factor on all lengths.
    """
    height, width = size
    segments = []
    for number in range(draw_count(parameters.strokes, generator)):
        x, y = draw_count((0, width - 1), generator), draw_count((0, height - 1), generator)
        for _ in range(draw_count((1, MOST_SEGMENTS), generator)):
            angle = 0.01 + draw_count((0, DIRECTIONS - 1), generator)
            if number % 2 == 0:
                angle = -angle
            length = unit * (SHORTEST + draw_count((0, parameters.lengths - 1), generator))
            brush = unit * (THINNEST + draw_count((0, parameters.widths - 1), generator))
            next_x = min(max(int(x + length * math.sin(angle)), 0), width)
            next_y = min(max(int(y + length * math.cos(angle)), 0), height)
            segments.append(Segment((x, y), (next_x, next_y), max(1, round(brush))))
            x, y = next_x, next_y
    return segments


def paint_segment(mask: Tensor, segment: Segment) -> None:
    """Set to 1 the pixels of a mask (H, W) within half the width of a segment, ends round."""
    (x0, y0), (x1, y1) = segment.start, segment.end
    radius = segment.width / 2
    reach = math.ceil(radius)
    top, left = max(0, min(y0, y1) - reach), max(0, min(x0, x1) - reach)
    window = mask[top : max(y0, y1) + reach + 1, left : max(x0, x1) + reach + 1]
    y = torch.arange(top, top + window.shape[0])[:, None] - y0
    x = torch.arange(left, left + window.shape[1])[None] - x0
    along_x, along_y = x1 - x0, y1 - y0
    squared = max(along_x**2 + along_y**2, 1)
    position = ((x * along_x + y * along_y) / squared).clamp(0, 1)
    distance = (x - position * along_x) ** 2 + (y - position * along_y) ** 2
    window[distance <= radius**2] = 1


def draw_boxes(
    parameters: BoxMasks, size: tuple[int, int], unit: float, generator: torch.Generator
) -> Tensor:
    """Draw a mask (H, W) of boxes; arguments as `draw_segments`. In a picture too small for the
    margin and the smallest box both shrink."""
    height, width = size
    mask = torch.zeros(height, width)
    shorter = min(size)
    margin = min(round(unit * parameters.margin), (shorter - 1) // 2)
    low, high = (min(round(unit * side), shorter - 2 * margin) for side in parameters.sides)
    for _ in range(draw_count(parameters.boxes, generator)):
        box_width = draw_count((max(low, 1), max(high, 1)), generator)
        box_height = draw_count((max(low, 1), max(high, 1)), generator)
        left = draw_count((margin, width - margin - box_width), generator)
        top = draw_count((margin, height - margin - box_height), generator)
        mask[top : top + box_height, left : left + box_width] = 1
    return mask


def draw_mask(
    parameters: MaskDegradation, size: tuple[int, int], generator: torch.Generator
) -> Tensor:
    """Draw a hole.

    Args:
        size: height and width of the picture.

    Returns:
        (H, W) float32 on the CPU, 1 in the hole, else 0; at least one pixel is 1.
    """
    unit = min(size) / parameters.side
    if chance(parameters.box_probability, generator) and parameters.boxes is not None:
        return draw_boxes(parameters.boxes, size, unit, generator)
    mask = torch.zeros(size)
    for segment in draw_segments(parameters.strokes, size, unit, generator):
        paint_segment(mask, segment)
    return mask


def cut_hole(
    image: Tensor, parameters: MaskDegradation, generator: torch.Generator
) -> tuple[Tensor, Tensor, dict[str, object]]:
    """Draw a hole for one picture.

    Args:
        image: (1, 3, H, W) in [0, 1].

    Returns:
        The masked picture and its mask, (1, 4, h, w); the picture that belongs to it, (1, 3, h, w),
        where h = w = `side` in a test, else h, w = H, W; and the share that the hole covers, in a
        test also the top and left of the square in the resized picture.
    """
    if not parameters.test:
        mask = draw_mask(parameters, (image.shape[-2], image.shape[-1]), generator)
        return masked(image, mask[None, None]), image, {"share": float(mask.mean())}
    side = parameters.side
    factor = side / min(image.shape[-2:])
    height, width = (max(side, round(length * factor)) for length in image.shape[-2:])
    image = resize(image, height, width, "bicubic").clamp(0, 1)
    while True:
        whole = draw_mask(parameters, (height, width), generator)
        rows, columns = (whole.amax(dim).nonzero().flatten().tolist() for dim in (1, 0))
        top = _start(rows, height, side, generator)
        left = _start(columns, width, side, generator)
        mask = whole[top : top + side, left : left + side]
        if 0 < mask.mean() <= 0.5:
            break
    image = image[..., top : top + side, left : left + side].contiguous()
    drawn: dict[str, object] = {"share": float(mask.mean()), "top": top, "left": left}
    return masked(image, mask[None, None]), image, drawn


def _start(hole: list[int], length: int, side: int, generator: torch.Generator) -> int:
    """First row or column of a window of `side` that meets a hole's extent along an axis."""
    return draw_count((max(0, hole[0] - side + 1), min(hole[-1], length - side)), generator)


def masked(image: Tensor, mask: Tensor) -> Tensor:
    """Images (B, 3, H, W) black in their holes, with the masks (B, 1, H, W) as fourth channel."""
    hole = mask.to(image)
    return torch.cat([image * (1 - hole), hole], dim=1)
