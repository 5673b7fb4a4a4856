"""Faces of a batch of pictures as a batch of aligned pieces, and back into their pictures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BIRError
from .alignment import (
    FACE_SIZE,
    align_face,
    inverted,
    paste_face,
    resized_matrix,
    scale_of,
)

# Vertices of MediaPipe's face mesh: both corners of the left and of the right eye in the picture,
# the tip of the nose, the left and the right corner of the mouth.
MESH_POINTS = ((33, 133), (362, 263), (1,), (61,), (291,))
MESH_VERTICES = 468  # ten more where the irises are known
# Where a face that is aligned has the box around it, in pixels (x, y): forehead to chin, without
# the hair.
BOX_CENTRE, BOX_SIDE = (256.0, 290.0), 320.0


@dataclass(frozen=True)
class FacePlace:
    """Where a face was cut out.

    Attributes:
        picture: index in its batch.
        matrix: (2, 3), pixels of the picture to pixels of the 512 x 512 face.
    """

    picture: int
    matrix: Tensor


@dataclass(frozen=True)
class FacePlaces:
    """Where the faces of a batch were cut out.

    Attributes:
        places: of each face, in the order of the faces.
        pictures: size of the batch.
        size: (height, width) of its pictures.
    """

    places: tuple[FacePlace, ...]
    pictures: int
    size: tuple[int, int]


@dataclass(frozen=True)
class FaceChoice:
    """Which faces of a picture are wanted: those of `indices` that are large enough, and of these
    the largest.

    Attributes:
        indices: in the order of the detector, from 0; None for all.
        least_size: the side in pixels that the square around a face must have.
        largest: how many; 0 for all.
    """

    indices: frozenset[int] | None = None
    least_size: float = 0.0
    largest: int = 0


def read_indices(text: str) -> frozenset[int] | None:
    """Numbers between commas, such as "0, 2"; None for an empty text.

    Raises:
        BIRError: anything else.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise BIRError(
            f"The indices of faces should be numbers from 0 with commas between them, but "
            f"{text.strip()!r} came; write 0, 2 for the first and the third, or nothing for all."
        )
    return frozenset(int(part) for part in parts) or None


def mesh_landmarks(points: Tensor) -> Tensor:
    """Five landmarks (5, 2) in the order of `alignment.TEMPLATE` from MediaPipe's face mesh.

    Args:
        points: (468 or more, 2), x and y of the vertices.

    Raises:
        BIRError: another shape.
    """
    if points.ndim != 2 or points.shape[0] < MESH_VERTICES or points.shape[1] != 2:
        raise BIRError(
            f"A face mesh should have x and y of {MESH_VERTICES} vertices or more, but a tensor of "
            f"shape {tuple(points.shape)} came; take the landmarks of MediaPipe."
        )
    return torch.stack([points[list(vertices)].double().mean(0) for vertices in MESH_POINTS])


def box_matrix(x: float, y: float, width: float, height: float) -> Tensor:
    """The matrix of an upright face in a box, as of `alignment.face_matrix`. It knows neither the
    turn of the face nor where its eyes are, so landmarks are better.

    Args:
        x, y: the left and upper edge of the box in pixels, from the outer edge of the picture.
        width, height: in pixels.

    Raises:
        BIRError: a box without an area, or NaN.
    """
    area = width * height
    if not (math.isfinite(x + y + area) and width > 0 and height > 0):
        raise BIRError(
            "The box of a face should have a width and a height above 0 pixels, but "
            f"{width:g} x {height:g} at {x:g}, {y:g} came; look at the detector's boxes."
        )
    scale = BOX_SIDE / math.sqrt(area)
    # The centre of the first pixel is (0, 0).
    centre = x + width / 2 - 0.5, y + height / 2 - 0.5
    shift = [target - scale * at for target, at in zip(BOX_CENTRE, centre, strict=True)]
    return torch.tensor([[scale, 0, shift[0]], [0, scale, shift[1]]], dtype=torch.float64)


def face_side(matrix: Tensor) -> float:
    """Pixels in the picture of a side of the square around a face."""
    return FACE_SIZE / scale_of(matrix)


def chosen_faces(matrices: Sequence[Tensor], choice: FaceChoice) -> list[int]:
    """Indices of the faces of one picture that are wanted, in the order in which they came."""
    sides = [face_side(matrix) for matrix in matrices]
    wanted = [
        index
        for index, side in enumerate(sides)
        if (choice.indices is None or index in choice.indices) and side >= choice.least_size
    ]
    if choice.largest:
        wanted = sorted(wanted, key=lambda index: -sides[index])[: choice.largest]
    return sorted(wanted)


def cut_faces(images: Tensor, places: Sequence[FacePlace]) -> tuple[Tensor, FacePlaces]:
    """Cut faces out, upright.

    Args:
        images: (B, 3, H, W) in [0, 1].
        places: of the faces in them, in any order.

    Returns:
        The faces (N, 3, 512, 512) in the order of the places, and what `paste_faces` needs.
    """
    faces = [
        align_face(images[place.picture : place.picture + 1], place.matrix) for place in places
    ]
    size = images.shape[-2], images.shape[-1]
    cut = FacePlaces(tuple(places), len(images), size)
    return torch.cat(faces) if faces else images.new_zeros(0, 3, FACE_SIZE, FACE_SIZE), cut


def paste_faces(images: Tensor, faces: Tensor, cut: FacePlaces) -> Tensor:
    """Put faces back where they were cut out, with soft edges; the later ones over the earlier.

    Args:
        images: (B, 3, H, W), the pictures of `cut_faces` at that or another size.
        faces: (N, 3, S, S), in the order of `cut_faces`, of any size.

    Returns:
        New pictures (B, 3, H, W); what is far from a face is that of `images`.

    Raises:
        BIRError: another number of pictures or faces, or faces that are not square.
    """
    if len(images) != cut.pictures:
        raise BIRError(
            f"The faces were cut out of {cut.pictures} pictures, but {len(images)} came to paste "
            "them into; connect the same batch, restored or not."
        )
    if len(faces) != len(cut.places):
        raise BIRError(
            f"There should be one restored face for each of the {len(cut.places)} that were cut "
            f"out, but {len(faces)} came; restore the whole batch of faces."
        )
    height, width = faces.shape[-2:]
    if height != width:
        raise BIRError(
            f"Restored faces should be square, as they were cut out, but {width} x {height} pixels "
            "came; restore them without cropping."
        )
    result = images.clone()
    size, cut_size = (images.shape[-2], images.shape[-1]), (FACE_SIZE, FACE_SIZE)
    for place, face in zip(cut.places, faces, strict=True):
        to_face = resized_matrix(place.matrix, cut_size, (height, width))
        back = resized_matrix(inverted(to_face), cut.size, size)
        picture = slice(place.picture, place.picture + 1)
        result[picture] = paste_face(result[picture], face[None].to(result), back)
    return result
