"""Where faces are, in what detectors send: core's FACE_LANDMARKS and BOUNDING_BOX, and ours."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..bir_core.errors import BIRError
from ..bir_core.faces.alignment import face_matrix
from ..bir_core.faces.cutting import box_matrix, mesh_landmarks

BOX = ("x", "y", "width", "height")


def face_matrices(found: Any, batch: int, height: int, width: int) -> list[list[Tensor]]:
    """For each picture of a batch of `height` x `width` pixels, the matrices of its faces, as of
    `face_matrix`.

    Args:
        found: FACE_LANDMARKS (a dict of frames and image_size), BOUNDING_BOX (a dict, a list of
            dicts, or a list of those for each picture; whatever is not for each picture is for
            all of them), or BIR_LANDMARKS (a tuple of landmarks (N, 5, 2) for each picture).

    Raises:
        BIRError: another form, or another number of pictures.
    """
    if isinstance(found, Mapping) and "frames" in found:
        of_mesh = _mesh_reader(found, height, width)
        return [[of_mesh(face) for face in frame] for frame in _per_picture(found["frames"], batch)]
    if isinstance(found, tuple):
        frames = _per_picture(found, batch)
        return [[face_matrix(points) for points in frame] for frame in frames]
    if isinstance(found, Mapping):
        return [[_box(found)] for _ in range(batch)]
    if isinstance(found, list) and all(isinstance(box, Mapping) for box in found):
        return [[_box(box) for box in found] for _ in range(batch)]
    if isinstance(found, list) and all(isinstance(frame, list) for frame in found):
        return [[_box(box) for box in frame] for frame in _per_picture(found, batch)]
    raise BIRError(
        "Cut Out Faces should be told where faces are by landmarks or boxes, but "
        f"{type(found).__name__} of another form came; connect a face detector."
    )


def _per_picture(frames: Sequence[Any], batch: int) -> Sequence[Any]:
    if len(frames) != batch:
        raise BIRError(
            f"The detector should have seen the {batch} images that faces are cut out of, but it "
            f"saw {len(frames)}; connect the same batch to both nodes."
        )
    return frames


def _mesh_reader(
    found: Mapping[str, Any], height: int, width: int
) -> Callable[[Mapping[str, Any]], Tensor]:
    """What reads a face of FACE_LANDMARKS, whose picture may have had another size."""
    seen = found.get("image_size", (height, width))
    ratio = torch.tensor([width / seen[1], height / seen[0]], dtype=torch.float64)

    def read(face: Mapping[str, Any]) -> Tensor:
        points = torch.as_tensor(face["landmarks_xy"])
        return face_matrix((mesh_landmarks(points) + 0.5) * ratio - 0.5)

    return read


def _box(box: Any) -> Tensor:
    if not isinstance(box, Mapping) or not all(name in box for name in BOX):
        raise BIRError(
            f"The box of a face should have {', '.join(BOX)}, but {type(box).__name__} of another "
            "form came; connect the boxes of a face detector."
        )
    return box_matrix(*(float(box[name]) for name in BOX))
