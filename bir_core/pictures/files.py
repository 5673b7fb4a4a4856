"""Picture files to tensors and back, with everything that belongs to the picture kept."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..atomic_files import complete_file
from ..errors import BIRError
from ..images import from_channels_last, require_finite, to_channels_last
from .codecs import Format, Samples, decode, encode

SUFFIXES: dict[str, Format] = {
    ".png": "png",
    ".jpg": "jpg",
    ".jpeg": "jpg",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
}
SIXTEEN_BIT_FORMATS = ("png", "tiff")
# Rec. 601, as JPEG and Pillow have it.
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Picture:
    """A picture, upright, and what a file keeps beside it.

    Attributes:
        image: (1, 3, H, W) float32 in [0, 1]; the channels of a grey picture are equal.
        alpha: (1, 1, H, W) float32 in [0, 1], 1 is opaque; None if the file has none.
        is_grey: the file had one colour channel; it is written with one again.
        bits: of a sample, 8 or 16.
        icc: ICC profile of the colours.
        exif: EXIF block without orientation and sizes.
    """

    image: Tensor
    alpha: Tensor | None = None
    is_grey: bool = False
    bits: Literal[8, 16] = 8
    icc: bytes | None = None
    exif: bytes | None = None


def read_picture(path: str | Path) -> Picture:
    """Read a PNG, JPEG, WebP or TIFF picture of 8 or 16 bits; the content decides the format.

    The EXIF orientation is applied and dropped; palettes are expanded; CMYK becomes sRGB through
    its ICC profile; floating-point TIFF is taken as 16 bit.

    Raises:
        BIRError: no file, an empty, damaged or unknown one, several pictures in it, NaN in it.
    """
    path = Path(path)
    if not path.is_file():
        what = "a folder" if path.is_dir() else "nothing"
        raise BIRError(f"Expected a picture at {path}, but found {what}; check the path.")
    try:
        if path.stat().st_size == 0:
            raise BIRError(f"Expected a picture in {path}, but it is empty; get it again.")
        samples = decode(path)
    except PermissionError as error:
        raise BIRError(
            f"Expected a readable picture at {path}, but access is denied; change its permissions."
        ) from error
    values = samples.values
    maximum = 1.0 if values.dtype.kind == "f" else float(np.iinfo(values.dtype).max)
    tensor = from_channels_last(torch.from_numpy(values.astype(np.float32))[None] / maximum)
    channels = tensor.shape[1]
    is_grey = channels < 3
    colours = 1 if is_grey else 3
    colour, alpha = tensor[:, :colours], tensor[:, colours:] if channels > colours else None
    return Picture(
        image=colour.repeat(1, 3, 1, 1) if is_grey else colour.contiguous(),
        alpha=None if alpha is None else alpha.contiguous(),
        is_grey=is_grey,
        bits=8 if values.dtype == np.uint8 else 16,
        icc=samples.icc,
        exif=samples.exif,
    )


def write_picture(
    path: str | Path, picture: Picture, *, overwrite: bool = False, quality: int = 95
) -> None:
    """Write a picture in the format of the path's suffix; the file appears only when complete.

    A 16-bit picture becomes 8 bits in JPEG and WebP. Grey becomes RGB in WebP, which
    has no grey (nor its profile).

    Args:
        overwrite: replace a file that exists.
        quality: 1 to 100, for JPEG and WebP.

    Raises:
        BIRError: the format does not exist or cannot hold the picture, a file stands there already,
            or it cannot be written (folder missing or protected, disk full).
    """
    path = Path(path)
    file_format = require_format(path, picture)
    require_free(path, overwrite=overwrite)
    require_finite(picture.image, f"The picture for {path}")
    samples = Samples(_integer_samples(picture, file_format), picture.icc, picture.exif)
    try:
        with complete_file(path) as temporary:
            encode(temporary, samples, file_format, quality)
    except OSError as error:
        raise BIRError(
            f"Expected to write the picture {path}, but it failed ({error.strerror or error}); "
            "check the folder and the free space."
        ) from error


def require_format(path: Path, picture: Picture) -> Format:
    """The format of a path's suffix.

    Raises:
        BIRError: none, or JPEG for a picture with alpha.
    """
    file_format = SUFFIXES.get(path.suffix.lower())
    if file_format is None:
        raise BIRError(
            f"Expected a picture name that ends in {', '.join(SUFFIXES)}, but {path} came; "
            "change the ending."
        )
    if file_format == "jpg" and picture.alpha is not None:
        raise BIRError(
            f"Expected a format with transparency for this picture, but {path} is JPEG, which has "
            "none; choose PNG, WebP or TIFF."
        )
    return file_format


def require_free(path: Path, *, overwrite: bool) -> None:
    """Raise BIRError if `path` is a folder, or a file that may not be replaced."""
    if path.is_dir():
        raise BIRError(f"Expected a file name for the picture, but {path} is a folder; add a name.")
    if path.exists() and not overwrite:
        raise BIRError(
            f"Expected a free name for the picture, but {path} exists and is kept; "
            "choose another name or allow it with --overwrite."
        )


def _integer_samples(picture: Picture, file_format: Format) -> NDArray[np.integer[Any]]:
    colour = picture.image
    if picture.is_grey and file_format != "webp":
        luma = torch.tensor(LUMA, dtype=torch.float64, device=colour.device).view(1, 3, 1, 1)
        colour = (colour.double() * luma).sum(1, keepdim=True)
    parts = [colour] if picture.alpha is None else [colour, picture.alpha.to(colour)]
    wide = picture.bits == 16 and file_format in SIXTEEN_BIT_FORMATS
    scaled = to_channels_last(torch.cat(parts, 1)).clamp(0, 1)[0] * (65535 if wide else 255)
    return scaled.round().cpu().numpy().astype(np.uint16 if wide else np.uint8)


def list_pictures(folder: str | Path, *, recursive: bool = False) -> list[Path]:
    """The pictures of a folder, known by their suffix, sorted by path, without hidden files.

    Raises:
        BIRError: no folder, or no picture in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "a file" if folder.is_file() else "nothing"
        raise BIRError(f"Expected a folder at {folder}, but found {what}; check the path.")
    found = sorted(
        path
        for path in folder.glob("**/*" if recursive else "*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise BIRError(
            f"Expected pictures ({', '.join(SUFFIXES)}) in the folder {folder}, but it has none; "
            "choose another folder" + ("." if recursive else " or look into subfolders as well.")
        )
    return found
