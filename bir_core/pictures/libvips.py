"""Samples through libvips, which runs threads: they do not survive a fork, so it is not used where
Pillow will do, and never imported before it is needed."""

import functools
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import BIRError
from .samples import Format, Samples, Source, too_large_for_memory, undecodable
from .side_data import UNREADABLE, Extras, clean_exif

# What libvips says above the reason itself.
_EMPTY_PHRASES = ("unable to write", "unable to load", "unable to call", "load error", "read error")
# What its decoders say of samples that they replaced, and go on.
_DAMAGE = ("mismatch", "premature", "discarding", "bad code", "not enough data", "error in tile")
_BIGTIFF_FROM = 3 * 2**30  # bytes of samples; TIFF ends at 4 GB


def load_libvips() -> Any:
    """The module pyvips.

    Raises:
        BIRError: it is absent, or this process is the child of one that used it.
    """
    try:
        import pyvips
    except (ImportError, OSError) as error:
        raise BIRError(
            f"16-bit PNG and TIFF need the package pyvips, but it cannot be loaded ({error}); "
            "install it with `pip install pyvips[binary]`."
        ) from error
    if _process_of_libvips() != os.getpid():
        raise BIRError(
            "16-bit PNG and TIFF can be read in a fresh process only, but this one was forked from "
            "a process that had read one; start the workers by 'spawn' or convert the pictures to "
            "8-bit PNG."
        )
    return pyvips


@functools.cache
def _process_of_libvips() -> int:
    """The process that used libvips first; a forked child inherits the answer."""
    return os.getpid()


def decode_libvips(source: Source, *, strict: bool) -> Samples:
    """Read the first page of a PNG or TIFF file, upright, as uint8, uint16 or floating point.

    Args:
        strict: refuse the picture as well for what libvips only notes: of damaged parts of TIFF it
            makes black ones and goes on.

    Raises:
        BIRError: it cannot be decoded, or parts of it could not.
    """
    pyvips = load_libvips()
    pyvips.Error("")  # takes what was left of other errors
    path, left_out = source.path, []
    with _warnings() as said, source.open() as file:
        try:
            if source.content is None:
                # By number: libvips takes a name for UTF-8, and what stands in [ ] for options.
                stream = pyvips.Source.new_from_descriptor(file.fileno())
                image = pyvips.Image.new_from_source(stream, "", fail_on="error")
            else:
                image = pyvips.Image.new_from_buffer(source.content, "", fail_on="error")
            fields = image.get_fields()
            icc = image.get("icc-profile-data") if "icc-profile-data" in fields else None
            exif, whole = _exif(image.get("exif-data")) if "exif-data" in fields else (None, True)
            image = image.autorot()
            if image.interpretation == "cmyk":
                image, icc, unread = _rgb_from_cmyk(image)
                left_out += unread
            elif image.interpretation in ("lab", "labs", "xyz"):
                image, icc = image.colourspace("srgb"), None
            values = image.numpy().reshape(image.height, image.width, image.bands)
        except pyvips.Error as error:
            raise undecodable(path, _reason(error)) from error
        except MemoryError as error:
            raise too_large_for_memory(path) from error
        except Exception as error:  # of the wrapper, on damaged headers
            raise undecodable(path, error) from error
    unnoticed = _reason(pyvips.Error("")) or _first_damage(said)
    if strict and unnoticed:
        raise undecodable(path, f"parts of it are damaged: {unnoticed}")
    if not whole:
        left_out.append("EXIF data that cannot be read")
    return Samples(_known_type(path, values), icc, exif, Extras(left_out=tuple(left_out)))


def encode_libvips(samples: Samples, file_format: Format) -> bytes:
    """A PNG or TIFF file of uint8 or uint16 samples with profile and, in TIFF, XMP data. Others
    are not left to libvips, which adds to EXIF data what it makes up.

    Raises:
        OSError: the encoder refuses.
    """
    pyvips = load_libvips()
    values = np.ascontiguousarray(samples.values)
    wide, grey = values.dtype == np.uint16, values.shape[-1] < 3
    kind = ("grey16" if wide else "b-w") if grey else ("rgb16" if wide else "srgb")
    image = pyvips.Image.new_from_array(values).copy(interpretation=kind)
    keep = []
    fields = {"icc": ("icc-profile-data", samples.icc)}
    if file_format == "tiff":
        fields["xmp"] = ("xmp-data", samples.extras.xmp)
    for name, (field, data) in fields.items():
        if data:
            image.set_type(pyvips.GValue.blob_type, field, data)
            keep.append(name)
    options: dict[str, Any] = {"keep": ",".join(keep) or "none"}
    if file_format == "tiff":
        options |= {"compression": "deflate", "predictor": "horizontal"}
        if values.nbytes > _BIGTIFF_FROM:
            options["bigtiff"] = True
    try:
        # To memory first: libvips reports a full disk late and in its own words.
        written: bytes = image.write_to_buffer(
            ".tif" if file_format == "tiff" else ".png", **options
        )
    except pyvips.Error as error:
        raise OSError(_reason(error) or "libvips gives no reason") from error
    return written


def _exif(block: bytes) -> tuple[bytes | None, bool]:
    exif = Image.Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, on what is cut off
            exif.load(block)
            return clean_exif(exif) if dict(exif) else (None, False)
    except UNREADABLE:  # of side data
        return None, False


def _rgb_from_cmyk(image: Any) -> tuple[Any, bytes, list[str]]:
    """sRGB and its profile, by the embedded profile or libvips' own; and what was left out."""
    pyvips = load_libvips()
    depth = 16 if image.format == "ushort" else 8
    options = {"input_profile": "cmyk", "intent": "perceptual", "depth": depth}
    unread = []
    try:
        converted = image.icc_transform("srgb", embedded=True, **options)
    except pyvips.Error:
        converted = image.icc_transform("srgb", **options)
        unread.append("a colour profile that cannot be read")
    return converted, converted.get("icc-profile-data"), unread


def _known_type(path: Path, values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype == np.uint32:
        return (values >> 16).astype(np.uint16)
    if values.dtype.kind == "f":
        _require_unit_range(path, values)
    elif values.dtype not in (np.uint8, np.uint16):
        raise undecodable(path, f"its samples are {values.dtype}")
    return values


def _require_unit_range(path: Path, values: NDArray[Any]) -> None:
    if not np.isfinite(values).all():
        raise BIRError(
            f"Expected finite numbers in the picture {path}, but NaN or infinity came; "
            "check the program that wrote it."
        )
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        raise BIRError(
            f"Expected floating-point samples in [0, 1] in {path}, but they reach from {low:g} to "
            f"{high:g}; scale them, or save the picture with 16 bits."
        )


def _reason(error: Any) -> str:
    """What libvips says, without the lines that say nothing and those that repeat."""
    lines = (line.strip() for line in f"{error.message}\n{error.detail}".splitlines())
    told = [line for line in lines if line and not any(one in line for one in _EMPTY_PHRASES)]
    return "; ".join(dict.fromkeys(told))


def _first_damage(said: list[str]) -> str:
    return next((text for text in said if any(word in text.lower() for word in _DAMAGE)), "")


@dataclass
class _Collect(logging.Filter):
    """Keeps records from the log, and their texts in `said`."""

    said: list[str]

    def filter(self, record: logging.LogRecord) -> bool:
        self.said.append(record.getMessage())
        return False


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """The warnings of libvips, which are of no use to users as they are."""
    collect = _Collect([])
    log = logging.getLogger("pyvips")
    log.addFilter(collect)
    try:
        yield collect.said
    finally:
        log.removeFilter(collect)
