"""TIFF files: what their tags say of pages, channels, resolution and texts.

libvips decodes them; Pillow what libvips does not: old-style JPEG and 12 bits per sample.
"""

import io
import struct
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from ..errors import BIRError
from . import tiff_tags as tags
from .libvips import decode_libvips, load_libvips
from .samples import (
    Samples,
    Source,
    left_out_frames,
    too_large_for_memory,
    undecodable,
    with_side_data,
)
from .side_data import (
    EXIF_IFD,
    GPS_IFD,
    IPTC_TAG,
    ORIENTATION,
    UNREADABLE,
    UPRIGHT,
    Extras,
    clean_exif,
    clean_xmp,
    sensible_resolution,
)

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
XMP_TAG, ICC_TAG, PHOTOSHOP_TAG = 700, 34675, 34377
# Words about the picture: its name, description, maker and model, page, program, date, author,
# computer, rights, and Windows' five.
DESCRIPTIVE = {*range(269, 273), 285, 305, 306, 315, 316, 33432, *range(40091, 40096)}
# How samples lie in the file, how they were scanned or shall be printed, and what is read apart.
STRUCTURAL = {
    *(*range(254, 269), *range(273, 285), *range(286, 305), *range(317, 326), *range(330, 348)),
    *(*range(512, 522), *range(529, 533), 301, 32995, 32996, 32997, 32998, 37724),
    *(XMP_TAG, ICC_TAG, EXIF_IFD, GPS_IFD),
}
_TWELVE_BITS = 12


def decode_tiff(source: Source) -> Samples:
    """Read a TIFF file: the picture itself, not its reduced versions; alpha only where the tags say
    alpha, and not multiplied into the colours.

    Raises:
        BIRError: as `decode`.
    """
    with source.open() as file:
        directories = tags.read_directories(file)
    first = directories[0] if directories else {}
    pages_left_out = left_out_frames(source, _pictures(source.path, directories))
    load_libvips()  # absent, it is said of all TIFF files alike
    bits = first.get(tags.BITS_PER_SAMPLE, (1,))
    if first.get(tags.COMPRESSION) == (tags.OLD_JPEG,) or _TWELVE_BITS in bits:
        samples = _decode_pillow(source, bits)
    else:
        samples = decode_libvips(source, strict=True)
    values, extra = _without_extra_channels(samples.values, first)
    exif, extras = _side_data(source)
    samples = replace(samples, values=values, exif=exif)
    return with_side_data(samples, extras, also_left_out=(*pages_left_out, *extra))


def finished_tiff(content: bytes, samples: Samples) -> bytes:
    """A TIFF file as libvips writes it with the resolution and the EXIF data of its samples, which
    libvips does not write."""
    resolution = samples.extras.resolution
    exif = Image.Exif()
    if samples.exif:
        exif.load(samples.exif)
        if resolution is None:
            resolution = _resolution(exif)
    content = tags.with_resolution(content, resolution)
    if not samples.exif or content[2:4] not in (b"*\0", b"\0*"):
        return content
    place = len(content) + len(content) % 2
    directory = TiffImagePlugin.ImageFileDirectory_v2(content[:4] + bytes(4))
    for tag, value in exif.items():
        if tag not in STRUCTURAL:
            directory[tag] = value
    for tag in (EXIF_IFD, GPS_IFD):
        details = exif.get_ifd(tag)
        if details:
            directory[tag] = dict(details)
    if not len(directory):
        return content
    return tags.with_directory(content, directory.tobytes(place), place)


def _pictures(path: Path, directories: list[tags.Directory]) -> int:
    """How many pages are pictures of their own.

    Raises:
        BIRError: the first is none.
    """
    kinds = [
        directory.get(tags.SUBFILE_TYPE, (0,))[0] & (tags.REDUCED | tags.MASK)
        or directory.get(tags.OLD_SUBFILE_TYPE) == (tags.OLD_REDUCED,)
        for directory in directories
    ]
    if kinds and kinds[0]:
        raise BIRError(
            f"Expected a whole picture as the first page of {path}, but that is a reduced version "
            "or a mask of another one; save the picture itself in a file of its own."
        )
    return sum(not kind for kind in kinds)


def _decode_pillow(source: Source, bits: tuple[int, ...]) -> Samples:
    try:
        with source.open() as file, Image.open(file, formats=("TIFF",)) as image:
            image.load()
            turned = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
            upright = image if turned is None else image.transpose(turned)
            icc = image.info.get("icc_profile")
    except MemoryError as error:
        raise too_large_for_memory(source.path) from error
    except Exception as error:  # whatever a decoder raises on damaged files
        kind = f"{bits[0]} bits per sample" if _TWELVE_BITS in bits else "old-style JPEG"
        reason = f"it has {kind}, which cannot be read here: {error}"
        raise undecodable(source.path, reason) from error
    if upright.mode.startswith("I;16"):
        wide = np.array(upright).astype(np.uint32)
        top = 2 ** bits[0] - 1
        return Samples(((wide * 65535 + top // 2) // top).astype(np.uint16)[..., None], icc, None)
    values = np.array(upright.convert("L" if upright.mode == "L" else "RGB"))
    return Samples(values.reshape(*values.shape[:2], -1), icc, None)


def _without_extra_channels(
    values: NDArray[Any], first: tags.Directory
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """The colours, and alpha if one of the other channels is; and what was left out."""
    is_grey = first.get(tags.PHOTOMETRIC, (2,))[0] in (0, 1) or values.shape[-1] < 3
    colours = 1 if is_grey else 3
    count = values.shape[-1] - colours
    if count == 0:
        return values, ()
    # Without the tag, which the format calls for, a channel more has always been alpha.
    kinds = first.get(tags.EXTRA_SAMPLES) or (tags.UNASSOCIATED,)
    alphas = (tags.ASSOCIATED, tags.UNASSOCIATED)
    place = next((index for index, kind in enumerate(kinds[:count]) if kind in alphas), None)
    dropped = count - (place is not None)
    said = (f"{dropped} extra channel" + ("s" if dropped > 1 else ""),) if dropped else ()
    colour = values[..., :colours]
    if place is None:
        return np.ascontiguousarray(colour), said
    alpha = values[..., colours + place : colours + place + 1]
    if kinds[place] == tags.ASSOCIATED and not _libvips_divides():
        colour = _divided(colour, alpha)
    return np.concatenate([colour, alpha], -1), said


@cache
def _libvips_divides() -> bool:
    """Whether this libvips takes alpha out of colours that it was multiplied into, as younger ones
    do: asked by a picture of one pixel."""
    file = io.BytesIO()
    Image.new("RGBA", (1, 1), (64, 64, 64, 128)).save(file, "TIFF")
    # Pillow writes that the colours stand for themselves, whatever it is told.
    entry = struct.pack("<HHI", tags.EXTRA_SAMPLES, 3, 1)
    unassociated, associated = (
        entry + struct.pack("<H", kind) for kind in (tags.UNASSOCIATED, tags.ASSOCIATED)
    )
    content = file.getvalue().replace(unassociated, associated)
    samples = decode_libvips(Source(Path("pixel.tif"), content), strict=True)
    return bool(samples.values[0, 0, 0] > 64)


def _divided(colour: NDArray[Any], alpha: NDArray[Any]) -> NDArray[Any]:
    """Colours that alpha was multiplied into, without it; black where nothing is left of them."""
    top = 1.0 if colour.dtype.kind == "f" else float(np.iinfo(colour.dtype).max)
    divided = np.zeros(colour.shape, np.float64)
    np.divide(colour.astype(np.float64) * top, alpha, out=divided, where=alpha > 0)
    divided = divided.clip(0, top)
    return (divided if colour.dtype.kind == "f" else divided.round()).astype(colour.dtype)


def _side_data(source: Source) -> tuple[bytes | None, Extras]:
    """Descriptive tags as EXIF data, which are tags of TIFF, and the extras."""
    try:
        with source.open() as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, on tags that are cut off
            found = _all_tags(file)
            kept_tags = Image.Exif()
            for tag in found:
                if tag in DESCRIPTIVE:
                    kept_tags[tag] = found[tag]
            for tag in (EXIF_IFD, GPS_IFD):
                if details := found.get_ifd(tag):
                    kept_tags[tag] = dict(details)
            exif, whole = clean_exif(kept_tags)
            resolution, xmp = _resolution(found), found.get(XMP_TAG)
    except UNREADABLE:  # of side data
        return None, Extras(left_out=("tags that cannot be read",))
    left_out = [] if whole else ["EXIF data that cannot be read"]
    kept = clean_xmp(xmp) if isinstance(xmp, bytes) else None
    if xmp and kept is None:
        left_out.append("XMP data")
    if IPTC_TAG in found:
        left_out.append("IPTC data")
    others = sorted(set(found) - DESCRIPTIVE - STRUCTURAL - {IPTC_TAG, PHOTOSHOP_TAG})
    if others:
        left_out.append(f"the tags {', '.join(map(str, others))}")
    return exif, Extras(kept, resolution, (), tuple(left_out))


def _all_tags(file: BinaryIO) -> Image.Exif:
    """The tags of the first page."""
    start = file.read(16)
    found = Image.Exif()
    found.endian = "<" if start[:2] == b"II" else ">"
    found.bigtiff = struct.unpack_from(found.endian + "H", start, 2)[0] == 43
    layout, at = ("Q", 8) if found.bigtiff else ("I", 4)
    found.load_from_fp(file, struct.unpack_from(found.endian + layout, start, at)[0])
    return found


def _resolution(found: Image.Exif) -> tuple[float, float] | None:
    per_inch = {2: 1.0, 3: 2.54}.get(found.get(tags.RESOLUTION_UNIT, 2))
    columns, rows = found.get(tags.X_RESOLUTION), found.get(tags.Y_RESOLUTION)
    if per_inch is None or columns is None or rows is None:
        return None
    pair = sensible_resolution(columns, rows)
    return pair and (pair[0] * per_inch, pair[1] * per_inch)
