"""The augmentation of LaMa's training on Places, which DiffIR took over: bent windows of pictures
in changed colours. Each kind of change has the probability 1/2."""

import math

import kornia
import torch
from torch import Tensor
from torch.nn import functional as F

from ...degradations.draws import chance, uniform
from .pictures import to_float

HALF = 0.5
PERSPECTIVE = (0.0, 0.06)  # deviation of the corners' shifts, as a share of the sides
ZOOM, ROTATION, SHEAR = (0.7, 1.3), (-40.0, 40.0), (-0.1, 0.1)  # both angles in degrees
LENS = (-0.05, 0.05)  # both coefficients of the radial distortion
CLIP_LIMIT, TILES = (1.0, 4.0), (8, 8)  # of CLAHE
LIGHT = (-0.2, 0.2)  # of brightness and of contrast
# In steps of OpenCV's 8-bit HSV, where the hue circle has 180.
HUE, SATURATION, VALUE = (-5.0, 5.0), (-30.0, 30.0), (-5.0, 5.0)


def places_window(image: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Bend a picture, cut a random window of it, flip it and change its colours.

    Bending is one interpolation: only the window is computed, from where its pixels come from.

    Args:
        image: (3, H, W), uint8 or float in [0, 1]; what lies outside is its mirror image.
        side: of the window in pixels.
        generator: on the CPU; the only source of randomness.

    Returns:
        (3, side, side) float32 in [0, 1].
    """
    window = _sample(to_float(image), _draw_origins(image.shape[1:], side, generator))
    if chance(HALF, generator):
        window = window.flip(2)
    if chance(HALF, generator):
        window = _clahe(window, uniform(CLIP_LIMIT, generator))
    if chance(HALF, generator):
        contrast, brightness = 1 + uniform(LIGHT, generator), uniform(LIGHT, generator)
        window = (contrast * window + brightness).clamp(0, 1)
    if chance(HALF, generator):
        shifts = (uniform(bounds, generator) for bounds in (HUE, SATURATION, VALUE))
        window = shift_hsv(window, *shifts)
    return window.clamp(0, 1).contiguous()


def _draw_origins(size: torch.Size, side: int, generator: torch.Generator) -> Tensor:
    """(side, side, 2): x and y in the picture that each pixel of a window comes from."""
    height, width = size
    to_source = torch.eye(3)
    if chance(HALF, generator):
        to_source = perspective(size, uniform(PERSPECTIVE, generator), generator) @ to_source
    if chance(HALF, generator):
        zoom, rotation, shear = (uniform(each, generator) for each in (ZOOM, ROTATION, SHEAR))
        to_source = to_source @ affine(size, zoom, rotation, shear)
    lens = uniform(LENS, generator) if chance(HALF, generator) else 0.0
    # A picture smaller than the window gets a border on all sides.
    wide, high = max(width, side), max(height, side)
    left, top = (int(uniform((0, extent - side + 1), generator)) for extent in (wide, high))
    steps = torch.arange(side, dtype=torch.float32)
    y, x = torch.meshgrid(steps + top, steps + left, indexing="ij")
    points = bend(torch.stack([x, y], dim=-1), (high, wide), lens)
    points = points - torch.tensor([(wide - width) // 2, (high - height) // 2])
    moved: Tensor = kornia.geometry.transform_points(to_source[None], points.view(1, -1, 2))
    return moved.view(side, side, 2)


def perspective(size: torch.Size, deviation: float, generator: torch.Generator) -> Tensor:
    """(3, 3): from a picture's pixels to those of the picture of which each corner was drawn out to
    the corner of the frame, from inside by a normal share of the sides."""
    height, width = size
    shares = (torch.randn(4, 2, generator=generator) * deviation).abs().clamp(max=0.49)
    right, bottom = float(width - 1), float(height - 1)
    corners = torch.tensor([[0.0, 0.0], [right, 0.0], [right, bottom], [0.0, bottom]])
    inwards = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
    inside = corners + inwards * shares * torch.tensor([right, bottom])
    if min(height, width) == 1:
        return torch.eye(3)  # a line has no perspective
    matrix: Tensor = kornia.geometry.get_perspective_transform(corners[None], inside[None])
    return matrix[0]


def affine(size: torch.Size, zoom: float, rotation: float, shear: float) -> Tensor:
    """(3, 3): from the pixels of a picture that was enlarged, turned and sheared about its centre
    back to those before; angles in degrees."""
    height, width = size
    angle, lean = math.radians(rotation), math.radians(shear)
    forward = zoom * torch.tensor(
        [
            [math.cos(angle), -math.sin(angle + lean)],
            [math.sin(angle), math.cos(angle + lean)],
        ]
    )
    centre = torch.tensor([(width - 1) / 2, (height - 1) / 2])
    matrix = torch.eye(3)
    matrix[:2, :2] = torch.linalg.inv(forward)
    matrix[:2, 2] = centre - matrix[:2, :2] @ centre
    return matrix


def bend(points: Tensor, size: tuple[int, int], lens: float) -> Tensor:
    """Where pixels (..., 2) of a picture behind a lens come from: x (1 + k r^2 + k r^4) about the
    centre, in units of the width."""
    height, width = size
    centre = torch.tensor([width / 2, height / 2])
    offset = (points - centre) / width
    squared = offset.square().sum(-1, keepdim=True)
    return centre + width * offset * (1 + lens * squared + lens * squared**2)


def _sample(image: Tensor, origins: Tensor) -> Tensor:
    """The picture (3, H, W) at x and y (h, w, 2), bilinear, mirrored outside."""
    extent = torch.tensor([max(image.shape[2] - 1, 1), max(image.shape[1] - 1, 1)])
    grid = 2 * origins / extent - 1
    return F.grid_sample(
        image[None], grid[None], mode="bilinear", padding_mode="reflection", align_corners=True
    )[0]


def _clahe(image: Tensor, clip_limit: float) -> Tensor:
    """Contrast-limited adaptive histogram equalisation of the lightness (Zuiderveld, 1994)."""
    lab = kornia.color.rgb_to_lab(image)
    equal = kornia.enhance.equalize_clahe(lab[:1] / 100, clip_limit, TILES)
    rgb: Tensor = kornia.color.lab_to_rgb(torch.cat([equal * 100, lab[1:]]))
    return rgb


def shift_hsv(image: Tensor, hue: float, saturation: float, value: float) -> Tensor:
    """Shift hue (180 is the circle), saturation and value (255 is the range) of (3, H, W)."""
    hsv = kornia.color.rgb_to_hsv(image)
    shifted = torch.stack(
        [
            (hsv[0] + hue * math.pi / 90) % (2 * math.pi),
            (hsv[1] + saturation / 255).clamp(0, 1),
            (hsv[2] + value / 255).clamp(0, 1),
        ]
    )
    rgb: Tensor = kornia.color.hsv_to_rgb(shifted)
    return rgb
