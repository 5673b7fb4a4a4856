"""The options of `bir restore --method diffbir --task unaligned_face`, and their networks."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..errors import BIRError
from ..faces.networks import (
    DETECTOR_FILE,
    PARSER_FILE,
    DetectFaces,
    ParseFace,
    load_face_detector,
    load_face_parser,
)
from ..faces.pipeline import require_photo_version, restore_photo
from .pipeline import DiffBIR
from .restoration_modules import RestorationModule, load_restoration_module

UNALIGNED_FACE = "unaligned_face"
NEEDED = {"face_stage1": "file", "face_weights": "folder"}


@dataclass(frozen=True)
class FaceNetworks:
    """What faces in whole photos need beside the networks of the background."""

    stage1: RestorationModule
    detect: DetectFaces
    parse: ParseFace | None


def add_arguments(group: argparse._ArgumentGroup) -> None:
    """The options that only the task unaligned_face takes."""
    group.add_argument(
        "--face-stage1",
        metavar="FILE",
        type=Path,
        help=f"of {UNALIGNED_FACE}: what --stage1 is for the faces, such as face_swinir_v1.ckpt",
    )
    group.add_argument(
        "--face-weights",
        metavar="FOLDER",
        type=Path,
        help=f"of {UNALIGNED_FACE}: where facexlib's files {DETECTOR_FILE} and {PARSER_FILE} lie",
    )
    group.add_argument(
        "--face-mask",
        choices=("parsed", "square"),
        help=f"of {UNALIGNED_FACE}: paste the face alone, as {PARSER_FILE} sees it, or its square "
        "(default: parsed)",
    )


def load_face_networks(
    options: argparse.Namespace, version: str, device: torch.device
) -> FaceNetworks | None:
    """What the options name; None for another task.

    Raises:
        BIRError: options of another task, a version without this task, or a wrong file.
    """
    if options.task != UNALIGNED_FACE:
        for name in (*NEEDED, "face_mask"):
            if getattr(options, name) is not None:
                raise BIRError(
                    f"Expected --task {UNALIGNED_FACE} with --{_option(name)}, but another task "
                    "came; change the task or leave the option out."
                )
        return None
    require_photo_version(version)
    for name, what in NEEDED.items():
        if getattr(options, name) is None:
            raise BIRError(
                f"Expected --{_option(name)} for --task {UNALIGNED_FACE}, but none came; "
                f"give the {what}."
            )
    folder = options.face_weights
    detect = load_face_detector(folder, device=device)
    parse = None if options.face_mask == "square" else load_face_parser(folder, device=device)
    return FaceNetworks(load_restoration_module(options.face_stage1, device=device), detect, parse)


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
