"""Networks that measure: those of pyiqa by name, the Inception of FID, the ArcFace of identity."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoints import read_checkpoint
from ..checkpoints.completeness import require_sound
from ..checkpoints.keys import unwrap
from ..errors import BIRError
from .weight_files import first_line, local_files_only, optional_package

ARCFACE_PATH = "facexlib/recognition_arcface_ir_se50.pth"
INCEPTION_SIDE = 299
ARCFACE_SIDE = 112
# The part of an FFHQ-aligned face that ArcFace sees: pixels 35 to 223 of the rows and 32 to 220 of
# the columns at 256x256, as in the identity loss of pSp (Richardson et al., "Encoding in Style",
# 2021).
FACE_ROWS = (35 / 256, 223 / 256)
FACE_COLUMNS = (32 / 256, 220 / 256)


def pyiqa_network(name: str, folder: Path, device: torch.device, **options: Any) -> nn.Module:
    """A metric of pyiqa with its weights from `folder`, laid out as torch's cache.

    Args:
        name: as pyiqa lists it.
        options: of the metric's class in pyiqa.

    Returns:
        A module that takes (B, 3, H, W) in [0, 1], and the originals after it, to (B, 1).

    Raises:
        BIRError: pyiqa is not installed, or a file is absent, damaged or another one's.
    """
    pyiqa = optional_package("pyiqa")
    if name == "clipiqa":
        # Imported by itself for the sentence on what its tokenizer lacks.
        optional_package("pyiqa.archs.clipiqa_arch")
    try:
        with local_files_only(folder):
            network: nn.Module = pyiqa.create_metric(name, device=device, **options)
            return network
    except (RuntimeError, ValueError, KeyError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise BIRError(
            f"Expected the published weights of pyiqa's {name} in {folder}, but reading them "
            f"failed ({first_line(error)}); download them again."
        ) from error


def inception_features(folder: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The Inception of FID (Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017),
    on pictures brought to 299x299 bilinearly without a low-pass filter, as the PyTorch port that
    the papers use does it.

    Returns:
        A function from (B, 3, H, W) in [0, 1] to features (B, 2048).

    Raises:
        BIRError: as `pyiqa_network`.
    """
    network: Any = pyiqa_network("fid", folder, device)
    inception = network.net.model

    @torch.no_grad()
    def features(image: Tensor) -> Tensor:
        side = (INCEPTION_SIDE, INCEPTION_SIDE)
        resized = F.interpolate(image.to(device), side, mode="bilinear", align_corners=False)
        # The arguments: let it not resize again, and map [0, 1] to [-1, 1].
        return inception(resized, False, True)[0].flatten(1).cpu()

    return features


def face_embedding(folder: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    """ArcFace (Deng et al., 2019), the IR-SE50 that facexlib publishes, on FFHQ-aligned faces.

    Returns:
        A function from faces (B, 3, H, W) in [0, 1] to unit vectors (B, 512).

    Raises:
        BIRError: facexlib is not installed, or the file is damaged or another one's.
    """
    backbone = optional_package("facexlib.recognition.arcface_arch").Backbone
    network = backbone(num_layers=50, drop_ratio=0.6, mode="ir_se")
    file = folder / ARCFACE_PATH
    weights = unwrap(read_checkpoint(file))
    require_sound(network.state_dict(), weights, f"{file} (ArcFace)")
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise BIRError(
            f"Expected facexlib's ArcFace in {file}, but its tensors are others; download it again."
        ) from error
    network = network.to(device).eval()

    @torch.no_grad()
    def embedding(faces: Tensor) -> Tensor:
        return network(face_crop(faces.to(device)) * 2 - 1).cpu()

    return embedding


def face_crop(faces: Tensor) -> Tensor:
    """The inner part of FFHQ-aligned faces, 112x112.

    Args:
        faces: (B, 3, H, W), square.

    Raises:
        BIRError: not square, so not aligned.
    """
    height, width = faces.shape[-2:]
    if height != width:
        raise BIRError(
            f"Expected aligned faces, which are square, but a picture of {width}x{height} came; "
            "measure identity on aligned faces."
        )
    rows = slice(*(round(part * height) for part in FACE_ROWS))
    columns = slice(*(round(part * width) for part in FACE_COLUMNS))
    side = (ARCFACE_SIDE, ARCFACE_SIDE)
    return F.interpolate(faces[..., rows, columns], side, mode="bilinear", antialias=True)
