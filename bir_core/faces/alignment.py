"""Faces of a whole photograph: cut out upright at 512 x 512 pixels, and paste back.

Matrices are (2, 3) and take a pixel (x, y) to a pixel; the centre of the first pixel is (0, 0).
Where nothing else is said, the numbers are those of the official DiffBIR.
"""

import math
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import BIRError
from ..images import require_finite, resize

FACE_SIZE = 512
# Left eye, right eye, nose and corners of the mouth (left and right in the picture) of a face as
# the face networks know it, in pixels (x, y).
TEMPLATE = torch.tensor(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ],
    dtype=torch.float64,
)
# What a face shows where it reaches beyond the picture: red, green, blue.
BORDER_COLOR = torch.tensor([135.0, 133.0, 132.0]) / 255
LEAST_EYE_DISTANCE = 5.0
BORDER_REPEATS = 2
# Factor of a warp below which bilinear interpolation would skip pixels of its source.
LEAST_WARP_SCALE = 0.5
# Classes of ParseNet that belong to the face; of its 19 the others are background, ear rings,
# neck lace, neck and cloth.
FACE_CLASSES = (*range(1, 14), 15)
PARSING_BLUR, PARSING_SIGMA, PARSING_FRAME = 101, 11.0, 10


def eye_distance(landmarks: Tensor) -> float:
    """Pixels between the eyes of the landmarks (5, 2)."""
    return float(torch.linalg.vector_norm(landmarks[1] - landmarks[0]))


def face_matrix(landmarks: Tensor) -> Tensor:
    """The similarity (turn, uniform scale, shift; never a mirror image) that brings landmarks to
    the template, by least median of squares (Rousseeuw, "Least Median of Squares Regression",
    1984): one wrong landmark of the five does not count.

    All ten pairs of landmarks are tried, where OpenCV, which the official code calls, draws pairs
    at random; both then fit the points that agree with the best pair by least squares.

    Args:
        landmarks: (5, 2), x and y in pixels of the picture, in the order of `TEMPLATE`.

    Returns:
        (2, 3) float64 on the CPU, pixels of the picture to pixels of the face.

    Raises:
        BIRError: another shape, NaN, or landmarks that all lie on one point.
    """
    if landmarks.shape != (5, 2):
        raise BIRError(
            "The landmarks of a face should be five points of x and y, but a tensor of shape "
            f"{tuple(landmarks.shape)} came; choose another detector."
        )
    require_finite(landmarks, "The landmarks of a face")
    # In the complex plane a similarity is z -> a z + b.
    # In this order, for MPS has no float64.
    points = torch.view_as_complex(landmarks.cpu().double().contiguous())
    template = torch.view_as_complex(TEMPLATE)
    best, least = None, math.inf
    for pair in combinations(range(5), 2):
        chosen = torch.tensor(pair)
        if points[pair[0]] == points[pair[1]]:
            continue
        errors = _squared_errors(points, template, *_fit(points[chosen], template[chosen]))
        if errors.median() < least:
            best, least = errors, float(errors.median())
    if best is None:
        raise BIRError(
            "The landmarks of a face should be five points, but all of them came at one place; "
            "choose another detector."
        )
    # Rousseeuw's robust standard deviation for 5 points and 2 that a similarity needs.
    deviation = 1.4826 * (1 + 5 / (5 - 2)) * math.sqrt(least)
    agreeing = best <= max(2.5 * deviation, 1e-3) ** 2
    a, b = _fit(points[agreeing], template[agreeing])
    return torch.tensor([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]], dtype=torch.float64)


def _fit(points: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares for targets = a points + b, all complex."""
    centred = points - points.mean()
    a = (centred.conj() * (targets - targets.mean())).sum() / centred.abs().square().sum()
    return a, targets.mean() - a * points.mean()


def _squared_errors(points: Tensor, targets: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return (a * points + b - targets).abs().square()


def scale_of(matrix: Tensor) -> float:
    """How much longer a matrix (2, 3) makes a line, in the mean over directions."""
    return math.sqrt(abs(float(torch.linalg.det(matrix[:, :2]))))


def inverted(matrix: Tensor) -> Tensor:
    """The matrix (2, 3) of the way back."""
    return torch.linalg.inv(_square(matrix))[:2]


def resized_matrix(matrix: Tensor, size: tuple[int, int], new_size: tuple[int, int]) -> Tensor:
    """A matrix (2, 3) whose target of `size` (height, width) is resized to `new_size`: outer edges
    go to outer edges, as in `images.resize`."""
    ratio = torch.tensor([new_size[1] / size[1], new_size[0] / size[0]], dtype=torch.float64)
    half_pixels = torch.tensor([0, 0, 0.5], dtype=torch.float64)
    return (matrix + half_pixels) * ratio[:, None] - half_pixels


def _square(matrix: Tensor) -> Tensor:
    last = torch.tensor([[0, 0, 1]], dtype=torch.float64)
    return torch.cat([matrix.double(), last])


def _to_unit(height: int, width: int) -> Tensor:
    """Pixels of a picture to [-1, 1] between its outer edges, (3, 3)."""
    rows = [[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1]]
    return torch.tensor(rows, dtype=torch.float64)


def warp(
    image: Tensor,
    matrix: Tensor,
    height: int,
    width: int,
    *,
    outside: Literal["zeros", "border"] = "zeros",
) -> Tensor:
    """Move a picture by a matrix, with bilinear interpolation.

    A picture that becomes less than half as large is reduced with antialiasing first; the official
    code interpolates at once and leaves out pixels.

    Args:
        image: (B, C, h, w).
        matrix: (2, 3), pixels of the image to pixels of the result.
        height, width: of the result.
        outside: what lies beyond the image: zeros, or its outermost pixels.

    Returns:
        (B, C, height, width).
    """
    scale = scale_of(matrix)
    if scale < LEAST_WARP_SCALE:
        old = image.shape[-2], image.shape[-1]
        factor = scale / LEAST_WARP_SCALE
        new = max(1, round(old[0] * factor)), max(1, round(old[1] * factor))
        image = resize(image, *new, mode="bilinear")
        matrix = inverted(resized_matrix(inverted(matrix), old, new))
    back = torch.linalg.inv(_square(matrix))
    sampled = _to_unit(*image.shape[-2:]) @ back @ torch.linalg.inv(_to_unit(height, width))
    theta = sampled[:2].to(image).expand(len(image), -1, -1)
    shape = [len(image), image.shape[1], height, width]
    grid = F.affine_grid(theta, shape, align_corners=False)
    return F.grid_sample(image, grid, padding_mode=outside, align_corners=False)


def align_face(image: Tensor, matrix: Tensor) -> Tensor:
    """Cut a face out.

    Args:
        image: (1, 3, H, W) in [0, 1].
        matrix: of `face_matrix`.

    Returns:
        (1, 3, 512, 512); beyond the picture lies the grey of `BORDER_COLOR`. The picture's
        outermost pixels come three times, unlike in the official code, so that no grey mixes into
        them when the face is pasted back.
    """
    color = BORDER_COLOR.to(image)[:, None, None]
    padded = F.pad(image - color, (BORDER_REPEATS,) * 4, mode="replicate")
    shift = torch.tensor([BORDER_REPEATS, BORDER_REPEATS], dtype=torch.float64)
    origin = matrix[:, 2] - matrix[:, :2] @ shift
    matrix = torch.cat([matrix[:, :2], origin[:, None]], dim=1)
    return warp(padded, matrix, FACE_SIZE, FACE_SIZE) + color


def parsing_mask(labels: Tensor) -> Tensor:
    """What of a restored face is the face, with soft edges.

    Args:
        labels: (1, 512, 512), the class of each pixel, 0 to 18 as ParseNet has them.

    Returns:
        (1, 1, 512, 512) float32 in [0, 1], zero in a frame of 10 pixels.
    """
    from kornia.filters import gaussian_blur2d  # here, as every command would start later by it

    classes = torch.tensor(FACE_CLASSES, device=labels.device)
    mask = torch.isin(labels, classes).float()[:, None]
    for _ in range(2):
        mask = gaussian_blur2d(
            mask, (PARSING_BLUR, PARSING_BLUR), (PARSING_SIGMA, PARSING_SIGMA), "reflect"
        )
    inside = mask[..., PARSING_FRAME:-PARSING_FRAME, PARSING_FRAME:-PARSING_FRAME]
    return F.pad(inside, (PARSING_FRAME,) * 4)


def paste_face(
    image: Tensor, face: Tensor, matrix: Tensor, parsing: Tensor | None = None
) -> Tensor:
    """Put a face back into a picture.

    The edge of its square is faded out over a tenth of its side, but not where the picture ends.
    The result is mask * face + (1 - mask) * image; the official code multiplies the face with the
    mask of its outermost pixels once more, which can only darken them.

    Args:
        image: (1, 3, H, W).
        face: (1, 3, S, S), 512 x 512 or of another size.
        matrix: (2, 3), pixels of the face to pixels of the picture.
        parsing: of `parsing_mask`, of the face's size; None pastes the square.

    Returns:
        A new picture (1, 3, H, W); pixels outside of the square are those of `image`.
    """
    height, width = image.shape[-2:]
    last = face.shape[-1] - 0.5
    corners = torch.tensor([[-0.5, -0.5], [last, -0.5], [-0.5, last], [last, last]])
    places = corners.double() @ matrix[:, :2].T + matrix[:, 2]
    # One pixel more on each side, so that the mask is zero where the window ends in the picture.
    left, top = (max(0, math.floor(float(v)) - 1) for v in places.amin(0))
    right, bottom = (
        min(length, math.ceil(float(v)) + 2)
        for v, length in zip(places.amax(0), (width, height), strict=True)
    )
    result = image.clone()
    if left >= right or top >= bottom:
        return result
    shift = torch.tensor([[0, 0, left], [0, 0, top]], dtype=torch.float64)
    local, size = matrix - shift, (bottom - top, right - left)
    mask = _square_mask(warp(torch.ones_like(face[:, :1]), local, *size))
    if parsing is not None:
        mask = torch.minimum(mask, warp(parsing.to(mask), local, *size))
    window = result[..., top:bottom, left:right]
    window.add_(mask * (warp(face, local, *size, outside="border") - window))
    return result


def _square_mask(covered: Tensor) -> Tensor:
    """The faded mask of a face that covers pixels (1, 1, h, w) by 0 to 1."""
    from kornia.filters import gaussian_blur2d

    # Two squares of even sides in one direction each, so that the mask stays centred; OpenCV has
    # both in the same, which shifts it by a pixel.
    inner = _eroded(covered, 1, 0)
    edge = max(1, math.isqrt(int(inner.sum())) // 20)
    inner = _eroded(inner, edge - 1, edge)
    sigma = 0.3 * (edge - 1) + 0.8  # OpenCV's for a kernel of 2 edge + 1
    # OpenCV mirrors at the picture's end, for which a narrow rest of a face has no room.
    side = 2 * edge + 1
    return gaussian_blur2d(inner, (side, side), (sigma, sigma), "replicate")


def _eroded(mask: Tensor, before: int, after: int) -> Tensor:
    """The least value of the square that reaches `before` pixels up and left and `after` down and
    right; beyond the mask there is nothing."""
    side, ends = before + 1 + after, (before, after)
    for kernel, padding in (((1, side), (*ends, 0, 0)), ((side, 1), (0, 0, *ends))):
        mask = -F.max_pool2d(F.pad(-mask, padding, value=-math.inf), kernel, stride=1)
    return mask
