"""Picture files to tensors and back, with everything that belongs to the picture kept."""

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..atomic_files import complete_file, file_number, writing
from ..errors import BIRError
from ..images import from_channels_last, luma, require_finite, to_channels_last
from .codecs import decode, encode
from .samples import Format, Samples
from .side_data import Extras

SUFFIXES: dict[str, Format] = {
    ".png": "png",
    ".jpg": "jpg",
    ".jpeg": "jpg",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
    # JPEG's rarer endings, last, so that the usual one counts where both are there.
    ".jfif": "jpg",
    ".jpe": "jpg",
    ".jif": "jpg",
    ".jfi": "jpg",
}
# Pictures that people keep in the same folders and that are not read.
_OTHER_ENDINGS = (
    "3fr apng arw avif bmp cr2 cr3 dcm dds dib djvu dng eps exr gif hdr heic heif hif icns ico j2c "
    "j2k jp2 jpf jps jpx jxl jxr mpo nef nrw orf pbm pcx pef pfm pgm pnm ppm psb psd qoi raf ras "
    "raw rw2 sgi sr2 srw svg tga wdp x3f xcf"
)
OTHER_SUFFIXES = frozenset(f".{ending}" for ending in _OTHER_ENDINGS.split())
SIXTEEN_BIT_FORMATS = ("png", "tiff")
# Of a side: 14 bits in WebP's headers; what the usual library for JPEG takes.
MOST_PIXELS: dict[Format, int] = {"webp": 16383, "jpg": 65500}
# RGB pictures in float32 that are alive while one is written, itself among them.
WRITING_PICTURES = 3


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
        extras: the rest of what stood beside the samples.
    """

    image: Tensor
    alpha: Tensor | None = None
    is_grey: bool = False
    bits: Literal[8, 16] = 8
    icc: bytes | None = None
    exif: bytes | None = None
    extras: Extras = Extras()


def read_picture(path: str | Path, *, first_frame: bool = False) -> Picture:
    """Read a PNG, JPEG, WebP or TIFF picture of 8 or 16 bits; the content decides the format.

    The EXIF orientation is applied and dropped; palettes are expanded; CMYK becomes sRGB through
    its ICC profile; floating-point TIFF is taken as 16 bit.

    Args:
        first_frame: of several frames or pages, read the first.

    Raises:
        SeveralPictures: there are several, without `first_frame`.
        BIRError: no file, an empty, damaged or unknown one, NaN in it.
    """
    path = Path(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "no file"
            raise BIRError(f"Expected a picture at {path}, but found {what}; check the path.")
        if status.st_size == 0:
            raise BIRError(f"Expected a picture in {path}, but it is empty; get it again.")
        samples = decode(path, first_frame=first_frame)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BIRError(
            f"Expected a picture at {path}, but found nothing; check the path."
        ) from error
    except PermissionError as error:
        raise BIRError(
            f"Expected a readable picture at {path}, but access is denied; change its permissions."
        ) from error
    except OSError as error:
        raise BIRError(
            f"Expected a readable picture at {path}, but the system refuses it "
            f"({error.strerror or error}); check the path and the disk."
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
        extras=samples.extras,
    )


def write_picture(
    path: str | Path, picture: Picture, *, overwrite: bool = False, quality: int = 95
) -> tuple[str, ...]:
    """Write a picture in the format of the path's suffix; the file appears only when complete.

    A 16-bit picture becomes 8 bits in JPEG and WebP. Grey becomes RGB in WebP, which
    has no grey (nor its profile).

    Args:
        overwrite: replace a file that exists.
        quality: 1 to 100, for JPEG and WebP.

    Returns:
        What of the picture's side data was lost since its file was read, in words.

    Raises:
        BIRError: the format does not exist or cannot hold the picture, a file stands there already,
            or it cannot be written (folder missing or protected, disk full).
    """
    path = Path(path)
    file_format = require_format(path, picture)
    require_free(path, overwrite=overwrite)
    require_finite(picture.image, f"The picture for {path}")
    values = _integer_samples(picture, file_format)
    samples = Samples(values, picture.icc, picture.exif, picture.extras)
    with writing(path, "the picture"), complete_file(path) as temporary:
        left_out = encode(temporary, samples, file_format, quality)
        require_free(path, overwrite=overwrite)  # one may have appeared meanwhile
    return left_out


def require_format(path: Path, picture: Picture, scale: float = 1) -> Format:
    """The format of a path's suffix.

    Args:
        scale: sides of what is written there by those of `picture`.

    Raises:
        BIRError: none, JPEG for a picture with alpha, or one that has no room for so many pixels.
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
    height, width = (int(side * scale) for side in picture.image.shape[-2:])
    most = MOST_PIXELS.get(file_format)
    if most is not None and max(height, width) > most:
        raise BIRError(
            f"Expected sides of at most {most} pixels for {path}, which its format can hold, but "
            f"the picture will have {width}x{height}; choose PNG or TIFF."
        )
    return file_format


def require_free(path: Path, *, overwrite: bool) -> None:
    """Raise BIRError if `path` is a folder, a file that may not be replaced, or no name that its
    folder can hold."""
    require_name(path)
    if path.is_dir():
        raise BIRError(f"Expected a file name for the picture, but {path} is a folder; add a name.")
    if path.exists() and not overwrite:
        raise BIRError(
            f"Expected a free name for the picture, but {path} exists and is kept; "
            "choose another name or allow it with --overwrite."
        )


def require_no_input(targets: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise BIRError if an output would replace an input: the same file, also under another name or
    spelling."""
    taken = {file_number(path) for path in inputs} - {None}
    for target in targets:
        if file_number(target) in taken:
            raise BIRError(
                f"Expected an output that is not an input, but {target} is both; "
                "inputs are never replaced: choose another name or folder."
            )


def require_name(path: Path) -> None:
    """Raise BIRError if no file can have this name, there or in a folder that is there already."""
    folder = path.parent
    while not os.path.isdir(folder) and folder != folder.parent:
        folder = folder.parent
    try:
        (folder / path.name).stat()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        raise BIRError(
            f"Expected a name that a picture can have, but the system refuses {path} "
            f"({getattr(error, 'strerror', None) or error}); choose a shorter or another name."
        ) from error


def _integer_samples(picture: Picture, file_format: Format) -> NDArray[np.integer[Any]]:
    colour = picture.image
    if picture.is_grey and file_format != "webp":
        colour = luma(colour)
    parts = [colour] if picture.alpha is None else [colour, picture.alpha.to(colour)]
    wide = picture.bits == 16 and file_format in SIXTEEN_BIT_FORMATS
    # In place: pictures are large, see `WRITING_PICTURES`.
    scaled = torch.cat(parts, 1).clamp_(0, 1).mul_(65535 if wide else 255).round_()
    return to_channels_last(scaled)[0].cpu().numpy().astype(np.uint16 if wide else np.uint8)


def list_pictures(folder: str | Path, *, recursive: bool = False) -> list[Path]:
    """The pictures of a folder, known by their suffix, sorted by path, without hidden files.

    Raises:
        BIRError: no folder, or no picture in it.
    """
    pictures, others = find_pictures(folder, recursive=recursive)
    if not pictures:
        raise BIRError(
            f"Expected pictures ({', '.join(SUFFIXES)}) in the folder {folder}, but it has none"
            + (f", only {others[0].name} and the like" if others else "")
            + "; choose another folder"
            + ("." if recursive else " or look into subfolders as well.")
        )
    return pictures


def find_pictures(folder: str | Path, *, recursive: bool = False) -> tuple[list[Path], list[Path]]:
    """The pictures of a folder, and what looks like pictures but is none that can be read: other
    formats, and subfolders without access. Both are sorted; hidden files are in neither.

    Raises:
        BIRError: no folder, or no access to it.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        what = "a file" if os.path.isfile(folder) else "nothing"
        raise BIRError(f"Expected a folder at {folder}, but found {what}; check the path.")
    pictures: list[Path] = []
    others: list[Path] = []

    def refused(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise BIRError(
                f"Expected a readable folder at {folder}, but the system refuses it "
                f"({error.strerror}); change its permissions."
            ) from error
        others.append(Path(error.filename))

    for place, folders, names in os.walk(folder, onerror=refused):
        if not recursive:
            folders.clear()
        visible = [Path(place, name) for name in names if not name.startswith(".")]
        pictures += [path for path in visible if path.suffix.lower() in SUFFIXES]
        others += [path for path in visible if path.suffix.lower() in OTHER_SUFFIXES]
    return sorted(pictures), sorted(others)
