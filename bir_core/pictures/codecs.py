"""Bytes of a picture file to samples and back.

Pillow does the 8-bit formats. It has no colour image of more than 8 bits per channel, so 16-bit PNG
and all of TIFF go through libvips (pyvips, an extra: one light wheel for all systems), which also
keeps their ICC profiles. libvips runs threads, which do not survive a fork, so it is not used where
Pillow will do, and never imported before it is needed.
"""

import functools
import io
import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from ..errors import BIRError

Format = Literal["png", "jpg", "webp", "tiff"]
PILLOW_FORMATS = ("PNG", "JPEG", "WEBP")
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNG_START = b"\x89PNG\r\n\x1a\n"
ORIENTATION = 0x0112
EXIF_IFD = 0x8769
PIXEL_SIZES = (0xA002, 0xA003)


@dataclass(frozen=True)
class Samples:
    """What a file holds, upright.

    Attributes:
        values: (H, W, C), uint8, uint16, or floating point in [0, 1]; C is 1 grey, 2 grey and
            alpha, 3 RGB, 4 RGB and alpha.
        icc: ICC profile of the colours.
        exif: EXIF block without orientation and pixel sizes, which would no longer be true.
    """

    values: NDArray[Any]
    icc: bytes | None
    exif: bytes | None


def decode(path: Path, content: bytes | None = None) -> Samples:
    """Read a PNG, JPEG, WebP or TIFF file; the content decides the format, not the name.

    Args:
        path: of the file; or what errors call it, if its content comes with it.
        content: the file's bytes; None reads them from `path`.

    Raises:
        BIRError: it cannot be decoded, is cut off, or holds several pictures.
    """
    with open(path, "rb") if content is None else io.BytesIO(content) as file:
        start = file.read(25)
    sixteen_bit_png = start.startswith(PNG_START) and start[24:25] == b"\x10"
    if sixteen_bit_png or start.startswith(TIFF_STARTS):
        return _decode_libvips(path, content)
    return _decode_pillow(path, content)


def encode(path: Path, samples: Samples, file_format: Format, quality: int) -> None:
    """Write uint8 or uint16 samples to a file; uint16 to PNG and TIFF only.

    Args:
        quality: 1 to 100, for JPEG and WebP.

    Raises:
        OSError: the file system or the encoder refuses.
    """
    grey = samples.values.shape[-1] < 3
    samples = replace(samples, icc=_matching_icc(samples.icc, grey))
    if file_format == "tiff" or samples.values.dtype == np.uint16:
        _encode_libvips(path, samples, file_format)
    else:
        _encode_pillow(path, samples, file_format, quality)


def _undecodable(path: Path, reason: object) -> BIRError:
    return BIRError(
        f"Expected a whole PNG, JPEG, WebP or TIFF picture in {path}, but it cannot be decoded "
        f"({str(reason).strip().splitlines()[0] if str(reason).strip() else 'unknown content'}); "
        "check or convert the file."
    )


def _require_single(path: Path, count: int) -> None:
    if count > 1:
        raise BIRError(
            f"Expected one picture in {path}, but it holds {count} frames or pages; "
            "split it into single pictures first."
        )


def _clean_exif(exif: Image.Exif) -> bytes | None:
    """The block to write again, or None if nothing is left."""
    exif.pop(ORIENTATION, None)
    details = exif.get_ifd(EXIF_IFD)
    for tag in PIXEL_SIZES:
        details.pop(tag, None)
    return exif.tobytes() if dict(exif) else None


def _matching_icc(icc: bytes | None, grey: bool) -> bytes | None:
    """The profile if it is for this kind of picture; encoders refuse any other."""
    return icc if icc and icc[16:20] == (b"GRAY" if grey else b"RGB ") else None


def _decode_pillow(path: Path, content: bytes | None) -> Samples:
    try:
        with warnings.catch_warnings():
            # Pillow warns at half the size where it refuses; such pictures are fine here.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            file = path if content is None else io.BytesIO(content)
            image: Image.Image = Image.open(file, formats=PILLOW_FORMATS)
        with image:
            if image.format != "MPO":  # a photograph with previews, of which it is the first
                _require_single(path, getattr(image, "n_frames", 1))
            image.load()
            upright = ImageOps.exif_transpose(image)
            return _samples_from_pillow(upright)
    except UnidentifiedImageError as error:
        raise _undecodable(path, "it is of no known format") from error
    except Image.DecompressionBombError as error:
        raise BIRError(
            f"Expected a picture of at most {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels in {path}, "
            "but it is larger; cut it into parts first."
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError, ImageCms.PyCMSError) as error:
        raise _undecodable(path, error) from error


def _samples_from_pillow(image: Image.Image) -> Samples:
    icc = image.info.get("icc_profile")
    exif = _clean_exif(image.getexif())
    if image.mode == "CMYK":
        image, icc = _rgb_from_cmyk(image, icc)
    alpha = image.has_transparency_data
    grey = image.mode in ("1", "L", "LA", "La")
    image = image.convert(("LA" if alpha else "L") if grey else ("RGBA" if alpha else "RGB"))
    values = np.array(image)
    return Samples(values.reshape(*values.shape[:2], -1), _matching_icc(icc, grey), exif)


def _rgb_from_cmyk(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, bytes | None]:
    """Through the embedded profile to sRGB; without one, by the plain formula."""
    if not icc:
        return image.convert("RGB"), None
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    converted = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
    assert converted is not None  # it is None for in-place conversion only
    return converted, srgb.tobytes()


def _encode_pillow(path: Path, samples: Samples, file_format: Format, quality: int) -> None:
    values = samples.values[..., 0] if samples.values.shape[-1] == 1 else samples.values
    options: dict[str, Any] = {}
    if samples.icc:
        options["icc_profile"] = samples.icc
    if samples.exif:
        options["exif"] = samples.exif
    if file_format == "jpg":
        options |= {"quality": quality, "subsampling": 0, "optimize": True}
    elif file_format == "webp":
        options |= {"quality": quality, "method": 4, "exact": True}
    name = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[file_format]
    # To memory first: when the disk is nearly full, Pillow takes a part written for the whole.
    content = io.BytesIO()
    try:
        Image.fromarray(values).save(content, name, **options)
    except ValueError as error:  # such as a side too long for the format
        raise OSError(str(error)) from error
    path.write_bytes(content.getbuffer())


@functools.cache
def _process_of_libvips() -> int:
    """The process that used libvips first; a forked child inherits the answer."""
    return os.getpid()


def _libvips() -> Any:
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


def _decode_libvips(path: Path, content: bytes | None) -> Samples:
    pyvips = _libvips()
    try:
        if content is None:
            # Not from libvips' cache, which does not notice that a file was written anew.
            image = pyvips.Image.new_from_file(str(path), fail_on="error", revalidate=True)
        else:
            image = pyvips.Image.new_from_buffer(content, "", fail_on="error")
        fields = image.get_fields()
        pages = image.get("n-pages") if "n-pages" in fields else 1
        _require_single(path, pages)
        icc = image.get("icc-profile-data") if "icc-profile-data" in fields else None
        exif = Image.Exif()
        if "exif-data" in fields:
            exif.load(image.get("exif-data"))
        image = image.autorot()
        if image.interpretation == "cmyk":
            depth = 16 if image.format == "ushort" else 8
            image = image.icc_transform(
                "srgb", embedded=True, input_profile="cmyk", intent="perceptual", depth=depth
            )
            icc = image.get("icc-profile-data")
        elif image.interpretation in ("lab", "labs", "xyz"):
            image, icc = image.colourspace("srgb"), None
        values = image.numpy().reshape(image.height, image.width, image.bands)
    except (pyvips.Error, SyntaxError, ValueError) as error:
        raise _undecodable(path, error) from error
    if values.shape[-1] > 4:
        raise _undecodable(path, f"it has {values.shape[-1]} channels, more than RGB and alpha")
    if values.dtype == np.uint32:
        values = (values >> 16).astype(np.uint16)
    elif values.dtype.kind == "f":
        _require_unit_range(path, values)
    elif values.dtype not in (np.uint8, np.uint16):
        raise _undecodable(path, f"its samples are {values.dtype}")
    return Samples(values, _matching_icc(icc, values.shape[-1] < 3), _clean_exif(exif))


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


def _encode_libvips(path: Path, samples: Samples, file_format: Format) -> None:
    pyvips = _libvips()
    values = np.ascontiguousarray(samples.values)
    wide, grey = values.dtype == np.uint16, values.shape[-1] < 3
    kind = ("grey16" if wide else "b-w") if grey else ("rgb16" if wide else "srgb")
    image = pyvips.Image.new_from_array(values).copy(interpretation=kind)
    keep = []
    for name, data in (("icc", samples.icc), ("exif", samples.exif)):
        if data:
            field = "icc-profile-data" if name == "icc" else "exif-data"
            image.set_type(pyvips.GValue.blob_type, field, data)
            keep.append(name)
    options: dict[str, Any] = {"keep": ",".join(keep) or "none"}
    if file_format == "tiff":
        options |= {"compression": "deflate", "predictor": "horizontal"}
    try:
        # To memory first: libvips reports a full disk late and in its own words.
        data = image.write_to_buffer(".tif" if file_format == "tiff" else ".png", **options)
    except pyvips.Error as error:
        raise OSError(str(error).strip()) from error
    path.write_bytes(data)
