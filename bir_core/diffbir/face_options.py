"""The options of `bir restore --method diffbir --task unaligned_face`, and their networks."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from ..errors import BIRError
from ..faces.networks import (
    DetectFaces,
    ParseFace,
    load_face_detector,
    load_face_parser,
    mtcnn_detector,
    read_mtcnn,
)
from ..faces.pipeline import require_photo_version, restore_photo
from ..models import DETECTOR_FILE, MTCNN_FILES, PARSER_FILE, find_file
from .official_files import needed_file
from .pipeline import DiffBIR
from .restoration_modules import RestorationModule, load_restoration_module
from .versions import DEFAULT_VERSION, find_version, official_files

UNALIGNED_FACE = "unaligned_face"


@dataclass(frozen=True)
class FaceNetworks:
    """What faces in whole photos need beside the networks of the background."""

    stage1: RestorationModule
    detect: DetectFaces
    parse: ParseFace | None


@dataclass(frozen=True, kw_only=True)
class FaceOptions:
    """What only this task takes.

    Attributes:
        face_stage1: what stage 1 is for the faces.
        face_weights: folder of facexlib's files; MTCNN's may lie in it too.
        face_detector: retinaface, of facexlib, or mtcnn; None for retinaface.
        face_mask: parsed, to paste the face alone, or square; None for parsed.
    """

    face_stage1: Path | None = None
    face_weights: Path | None = None
    face_detector: str | None = None
    face_mask: str | None = None


def load_face_networks(
    options: FaceOptions, task: str, version: str, device: torch.device, models: Path | None = None
) -> FaceNetworks | None:
    """What the options name, or what lies in a folder of models under the known names; None for
    another task.

    Raises:
        BIRError: options of another task, a version without this task, or a wrong or absent file.
    """
    if task != UNALIGNED_FACE:
        for field in fields(options):
            if getattr(options, field.name) is not None:
                raise BIRError(
                    f"Expected --task {UNALIGNED_FACE} with --{field.name.replace('_', '-')}, but "
                    "another task came; change the task or leave the option out."
                )
        return None
    require_photo_version(version)
    purpose = f"--task {UNALIGNED_FACE}"
    stage1 = options.face_stage1 or needed_file(
        "face_stage1", purpose, official_files("face", version).stage1, models
    )
    mtcnn, square = options.face_detector == "mtcnn", options.face_mask == "square"
    folder = options.face_weights
    if folder is None and not (mtcnn and square):
        file = PARSER_FILE if mtcnn else DETECTOR_FILE
        folder = needed_file("face_weights", purpose, file, models).parent
    detect = (
        _mtcnn(folder, device)
        if mtcnn or folder is None
        else load_face_detector(folder, device=device)
    )
    parse = None if square or folder is None else load_face_parser(folder, device=device)
    return FaceNetworks(load_restoration_module(stage1, device=device), detect, parse)


def has_face_files(version: str | None, models: Path | None) -> bool:
    """Whether a folder of models has all that `load_face_networks` needs where no file is named,
    and the package that opens it is there.

    Args:
        version: of DiffBIR; None for the default one.
    """
    row = find_version(version or DEFAULT_VERSION)
    if not row.whole_photos or find_spec("facexlib") is None:
        return False
    stage1 = official_files("face", version or DEFAULT_VERSION).stage1
    files = (stage1, DETECTOR_FILE, PARSER_FILE)
    return all(find_file(file, models) is not None for file in files)


def _mtcnn(folder: Path | None, device: torch.device) -> DetectFaces:
    """MTCNN from the folder if it is there, else from torch's cache."""
    places = [Path(torch.hub.get_dir()), *([] if folder is None else [folder])]
    place = max(places, key=lambda place: (place / MTCNN_FILES["pnet"]).is_file())
    files = {part: place / file for part, file in MTCNN_FILES.items()}
    return mtcnn_detector(read_mtcnn(files).to(device))


def photo_restorer(background: DiffBIR, networks: FaceNetworks) -> Callable[..., Tensor]:
    """`restore_photo` with all of its networks."""
    return partial(
        restore_photo,
        background=background,
        faces=background.with_stage1(networks.stage1),
        detect=networks.detect,
        parse=networks.parse,
    )
