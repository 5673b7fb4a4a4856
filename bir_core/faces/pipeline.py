"""Whole photographs: the background and each face restored by a pipeline of its own, and joined."""

import logging

import torch
from torch import Tensor

from ..diffbir.pipeline import DiffBIR
from ..diffbir.prompts import rows_of
from ..diffbir.settings import DiffBIRSettings, official_settings
from ..diffbir.stage1 import stage1_sizes
from ..diffbir.stages import Callback
from ..diffbir.versions import VERSIONS, find_version
from ..errors import BIRError
from ..fallbacks import enough_memory
from ..images import keep_grey, resize
from ..seeds import image_seed
from .alignment import (
    LEAST_EYE_DISTANCE,
    align_face,
    eye_distance,
    face_matrix,
    inverted,
    parsing_mask,
    paste_face,
    resized_matrix,
)
from .networks import DetectFaces, ParseFace

logger = logging.getLogger(__name__)


@enough_memory()
@torch.no_grad()
def restore_photo(
    image: Tensor,
    prompt: Tensor,
    negative: Tensor | None = None,
    *,
    background: DiffBIR,
    faces: DiffBIR,
    detect: DetectFaces,
    parse: ParseFace | None = None,
    upscale_by: float = 4.0,
    settings: DiffBIRSettings | None = None,
    seed: int = 0,
    callback: Callback | None = None,
) -> Tensor:
    """The task `unaligned_face` of DiffBIR v2 and v2.1.

    Three things differ from the official code: the result always has the size that was asked for,
    where the official one stays at a short side of 512; a picture without a face is restored like
    any other, where the official code writes none; and each face draws its noise with the seed of
    its picture, so that it depends neither on the number nor on the order of the others.

    Args:
        image: (B, 3, H, W) in [0, 1], any size.
        prompt, negative: as in a call of `DiffBIR`, for background and faces alike.
        background: for the whole picture, as for the task sr: stage 1 is BSRNet in v2 and the
            SwinIR of Real-ESRGAN in v2.1.
        faces: for 512 x 512 pixels around each face, such as `background.with_stage1` of the
            SwinIR for faces.
        detect: as from `networks.load_face_detector`.
        parse: as from `networks.load_face_parser`; None pastes the whole square of a face
            with soft edges, and not the face alone.
        upscale_by, settings, seed, callback: as in a call of `DiffBIR`. The callback is told which
            face is at work before the stage.

    Returns:
        (B, 3, int(H upscale_by), int(W upscale_by)) float32 in [0, 1], on the image's device.

    Raises:
        BIRError: a pipeline of v1, impossible landmarks, and whatever `DiffBIR` raises.
    """
    for pipeline in (background, faces):
        require_photo_version(pipeline.version)
    settings = settings or official_settings(background.version)
    tell = callback or (lambda stage, done, total: None)
    restored = background(
        image,
        prompt,
        negative,
        task="sr",
        upscale_by=upscale_by,
        settings=settings,
        seed=seed,
        callback=tell,
    )
    height, width = image.shape[-2:]
    sizes = stage1_sizes(height, width, "enlarge_first", upscale_by, settings.short_side)
    results = []
    for index, result in enumerate(restored):
        result = result[None]
        # In two steps, as stage 1 does.
        enlarged = resize(image[index, None].float(), *sizes.output).clamp(0, 1)
        enlarged = resize(enlarged, *sizes.condition).clamp(0, 1)
        matrices = _matrices(detect(enlarged))
        if not matrices:
            logger.warning("No face found: the result is the restored background")
        for number, matrix in enumerate(matrices, 1):
            face = faces(
                align_face(enlarged, matrix),
                rows_of(prompt, index, 1),
                None if negative is None else rows_of(negative, index, 1),
                task="face",
                upscale_by=1.0,
                settings=settings,
                seed=image_seed(seed, index),
                callback=_named(tell, f"face {number} of {len(matrices)}"),
            )
            mask = None if parse is None else parsing_mask(parse(face))
            back = resized_matrix(inverted(matrix), sizes.condition, sizes.output)
            result = paste_face(result, face, back, mask)
        # What surrounds an aligned face has a colour.
        results.append(keep_grey(result, image[index, None]))
    return torch.cat(results)


def require_photo_version(version: str) -> None:
    """Raise BIRError for a version that the authors give no pipeline for whole photos with."""
    if not find_version(version).whole_photos:
        able = " or ".join(name for name, row in VERSIONS.items() if row.whole_photos)
        raise BIRError(
            f"Expected DiffBIR {able} for faces in whole photos, but {version} came, which "
            "restores aligned faces only; choose another version, or the task face."
        )


def _matrices(landmarks: Tensor) -> list[Tensor]:
    """Of the faces that are large enough, pixels of the picture to pixels of the face."""
    if landmarks.ndim != 3 or landmarks.shape[1:] != (5, 2):
        raise BIRError(
            "A face detector should give landmarks of shape (N, 5, 2), but a tensor of shape "
            f"{tuple(landmarks.shape)} came; choose another detector."
        )
    large = [points for points in landmarks if not eye_distance(points) < LEAST_EYE_DISTANCE]
    return [face_matrix(points) for points in large]


def _named(tell: Callback, what: str) -> Callback:
    return lambda stage, done, total: tell(f"{what}: {stage}", done, total)
