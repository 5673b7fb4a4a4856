"""The options of `bir restore --method diffbir --task unaligned_face`, and their networks."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..errors import BIRError
from ..faces.networks import (
    DetectFaces,
    ParseFace,
    load_face_detector,
    load_face_parser,
)
from ..faces.pipeline import require_photo_version, restore_photo
from .pipeline import DiffBIR
from .restoration_modules import RestorationModule, load_restoration_module

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
        face_weights: folder of facexlib's files.
        face_mask: parsed, to paste the face alone, or square; None for parsed.
    """

    face_stage1: Path | None = None
    face_weights: Path | None = None
    face_mask: str | None = None


def load_face_networks(
    options: FaceOptions, task: str, version: str, device: torch.device
) -> FaceNetworks | None:
    """What the options name; None for another task.

    Raises:
        BIRError: options of another task, a version without this task, or a wrong file.
    """
    if task != UNALIGNED_FACE:
        for field in fields(options):
            if getattr(options, field.name) is not None:
                raise BIRError(
                    f"Expected --task {UNALIGNED_FACE} with --{_option(field.name)}, but another "
                    "task came; change the task or leave the option out."
                )
        return None
    require_photo_version(version)
    stage1 = _needed(options.face_stage1, "face_stage1", "file")
    folder = _needed(options.face_weights, "face_weights", "folder")
    detect = load_face_detector(folder, device=device)
    parse = None if options.face_mask == "square" else load_face_parser(folder, device=device)
    return FaceNetworks(load_restoration_module(stage1, device=device), detect, parse)


def _needed(path: Path | None, name: str, what: str) -> Path:
    if path is None:
        raise BIRError(
            f"Expected --{_option(name)} for --task {UNALIGNED_FACE}, but none came; "
            f"give the {what}."
        )
    return path


def photo_restorer(background: DiffBIR, networks: FaceNetworks) -> Callable[..., Tensor]:
    """`restore_photo` with all of its networks."""
    return partial(
        restore_photo,
        background=background,
        faces=background.with_stage1(networks.stage1),
        detect=networks.detect,
        parse=networks.parse,
    )


def _option(attribute: str) -> str:
    return attribute.replace("_", "-")
