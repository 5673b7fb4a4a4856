"""Faces of whole photographs: cut out, and pasted back."""

from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..bir_core.errors import BIRError
from ..bir_core.faces.alignment import BORDER_COLOR, FACE_SIZE, inverted
from ..bir_core.faces.cutting import (
    FaceChoice,
    FacePlace,
    FacePlaces,
    chosen_faces,
    cut_faces,
    face_side,
    paste_faces,
    read_indices,
)
from ..bir_core.faces.mtcnn import working_bytes
from ..bir_core.faces.networks import MTCNN_CONFIDENCE, read_mtcnn
from ..bir_core.images import (
    attach_alpha,
    from_channels_last,
    keep_grey,
    split_alpha,
    to_channels_last,
)
from ..bir_core.memory import USABLE
from ..bir_core.models import MTCNN_FILES
from .face_places import face_matrices
from .host import messages, services
from .host.node import Node
from .inputs import CutPlaces, FaceLandmarks, FiveLandmarks

ALIASES = ["face", "restore face", "faces", "face restoration", "group photo", "portrait"]


class BIRDetectFaces(Node):
    """Pictures to where their faces are, by MTCNN."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BIRDetectFaces",
            display_name="Detect Faces (MTCNN)",
            category="image/restoration",
            description=(
                "Finds all faces of photographs, with five landmarks each, by MTCNN. Its weights "
                "come from the command that the help page names. For Cut Out Faces."
            ),
            search_aliases=[*ALIASES, "face detection", "detect face", "mtcnn", "face landmark"],
            inputs=[
                io.Image.Input("image", tooltip="Photographs; one or a batch."),
                io.Int.Input(
                    "least_face",
                    default=20,
                    min=12,
                    max=4096,
                    tooltip="Side in pixels of the smallest face to look for. Large values are "
                    "much faster and find less that is none.",
                ),
                io.Float.Input(
                    "confidence",
                    default=MTCNN_CONFIDENCE,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How sure a face must be, 0 to 1. Lower: more faces, and more that are "
                    "none.",
                ),
            ],
            outputs=[
                FiveLandmarks.Output(
                    display_name="landmarks",
                    tooltip="Eyes, nose and corners of the mouth of all faces, for Cut Out Faces; "
                    "of each image the surest first.",
                ),
                io.BoundingBox.Output(
                    display_name="bboxes",
                    tooltip="Boxes of the same faces for each image, for nodes that draw them.",
                ),
            ],
        )

    @classmethod
    def execute(cls, image: Tensor, least_face: int, confidence: float) -> io.NodeOutput:
        pictures, _ = split_alpha(from_channels_last(image.float()))
        files = {
            part: services.detection_file(Path(file).name) for part, file in MTCNN_FILES.items()
        }
        absent = [path for path in files.values() if not path.is_file()]
        if absent:
            raise BIRError(
                f"Expected MTCNN in models/detection, but {absent[0].name} is not there; run "
                f"`python -m bir_core weights faces --folder {absent[0].parent}` in the folder of "
                "this pack, which fetches it."
            )
        model = services.manage(read_mtcnn(files))
        model.load(working_bytes(pictures.shape[-2], pictures.shape[-1], least_face) / USABLE)
        progress = services.batch_progress(len(pictures))
        landmarks, boxes = [], []
        for index, picture in enumerate(pictures):
            found = model.network(
                picture[None].to(model.device), least_face=float(least_face), confidence=confidence
            )
            corners, scores, points = (each.cpu() for each in found)
            landmarks.append(points)
            boxes.append([_box(*each) for each in zip(corners, scores, strict=True)])
            progress(index)(1, 1)
        return io.NodeOutput(tuple(landmarks), boxes)


def _box(corners: Tensor, score: Tensor) -> dict[str, Any]:
    """As core's detectors send it."""
    x, y, right, bottom = corners.tolist()
    size = {"x": x, "y": y, "width": right - x, "height": bottom - y}
    return {**size, "label": "face", "score": float(score)}


class BIRCutFaces(Node):
    """Pictures and where their faces are to upright faces of 512 x 512 pixels."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BIRCutFaces",
            display_name="Cut Out Faces",
            category="image/restoration",
            description=(
                "Cuts the faces of photographs out, upright and at 512 x 512 pixels, as face "
                "restoration expects them. Restore the batch, then put it back with Paste Faces."
            ),
            search_aliases=[*ALIASES, "crop face", "align face"],
            inputs=[
                io.Image.Input("image", tooltip="Photographs with faces; one or a batch."),
                io.MultiType.Input(
                    "faces",
                    types=[FiveLandmarks, FaceLandmarks, io.BoundingBox],
                    tooltip="Where the faces are: landmarks, which turn them upright, or boxes. "
                    "From a face detector that saw the same batch; MediaPipe's finds one face "
                    "unless num_faces is raised.",
                ),
                io.String.Input(
                    "indices",
                    default="",
                    tooltip="Which faces, counted from 0 as the report lists them, such as 0, 2. "
                    "Empty: all.",
                ),
                io.Int.Input(
                    "least_size",
                    default=20,
                    min=0,
                    max=16384,
                    tooltip="Faces whose square is smaller are left out; its side in pixels of "
                    "the image, about four times the distance of the eyes.",
                ),
                io.Int.Input(
                    "largest",
                    default=0,
                    min=0,
                    max=1024,
                    tooltip="How many faces of each image, the largest first to be taken. 0: all.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="faces",
                    tooltip="A batch of 512 x 512 pixels. Without a face one grey square, which "
                    "Paste Faces leaves away.",
                ),
                CutPlaces.Output(
                    display_name="places", tooltip="Where each came from, for Paste Faces."
                ),
                io.String.Output(
                    display_name="report", tooltip="Every face that was found, and which were cut."
                ),
            ],
        )

    @classmethod
    def execute(
        cls, image: Tensor, faces: Any, indices: str, least_size: int, largest: int
    ) -> io.NodeOutput:
        pictures, _ = split_alpha(from_channels_last(image.float()))
        choice = FaceChoice(read_indices(indices), float(least_size), largest)
        places, lines = [], []
        found = face_matrices(faces, len(pictures), *pictures.shape[-2:])
        for picture, matrices in enumerate(found):
            chosen = chosen_faces(matrices, choice)
            places += [FacePlace(picture, matrices[index]) for index in chosen]
            beginning = messages.which_image(picture, len(pictures))
            lines += [
                f"{beginning}face {index}, {_where(matrix)}: "
                + ("cut out" if index in chosen else "left out")
                for index, matrix in enumerate(matrices)
            ]
            if not chosen:
                why = "no face was found" if not matrices else "no face was chosen"
                lines.append(f"{beginning}{why}")
        crops, cut = cut_faces(pictures, places)
        if not places:
            grey = BORDER_COLOR.to(pictures).view(1, 3, 1, 1)
            crops = grey.expand(1, 3, FACE_SIZE, FACE_SIZE)
        report = "\n".join(lines)
        return io.NodeOutput(
            services.to_output(to_channels_last(crops)), cut, report, ui=ui.PreviewText(report)
        )


def _where(matrix: Tensor) -> str:
    middle = torch.tensor([FACE_SIZE / 2 - 0.5] * 2, dtype=torch.float64)
    back = inverted(matrix)
    x, y = (back[:, :2] @ middle + back[:, 2]).tolist()
    return f"{face_side(matrix):.0f} pixels around ({x:.0f}, {y:.0f})"


class BIRPasteFaces(Node):
    """Restored faces back into their pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BIRPasteFaces",
            display_name="Paste Faces",
            category="image/restoration",
            description=(
                "Puts the faces that Cut Out Faces took, restored, back into their photographs, "
                "with soft edges."
            ),
            search_aliases=[*ALIASES, "composite face", "uncrop"],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="The photographs, restored or enlarged on their own or not; as many "
                    "as Cut Out Faces had.",
                ),
                io.Image.Input(
                    "faces",
                    tooltip="The restored batch of Cut Out Faces, in its order; squares of any "
                    "size.",
                ),
                CutPlaces.Input("places", tooltip="From Cut Out Faces."),
            ],
            outputs=[io.Image.Output(tooltip="The photographs with the restored faces.")],
        )

    @classmethod
    def execute(cls, image: Tensor, faces: Tensor, places: FacePlaces) -> io.NodeOutput:
        pictures, alpha = split_alpha(from_channels_last(image.float()))
        restored, _ = split_alpha(from_channels_last(faces.float()))
        if not places.places:
            restored = restored[:0]  # the grey square
        pasted = paste_faces(pictures, restored, places)
        finished = attach_alpha(keep_grey(pasted, pictures), alpha).clamp(0, 1)
        return io.NodeOutput(services.to_output(to_channels_last(finished)))
