"""Bytes of a picture file to samples and back.

Pillow does the 8-bit formats. It has no colour image of more than 8 bits per channel, so 16-bit PNG
and all of TIFF go through libvips (pyvips, an extra: one light wheel for all systems), which also
keeps their ICC profiles.
"""

import io
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from ..errors import BIRError
from .containers import (
    PNG_START,
    png_exif,
    png_resolution,
    png_text,
    png_with,
    png_xmp,
    without_side_data,
)
from .libvips import decode_libvips, encode_libvips, load_libvips
from .samples import (
    Format,
    Samples,
    Source,
    Undecodable,
    left_out_frames,
    matching_icc,
    too_large_for_memory,
    undecodable,
    with_side_data,
)
from .side_data import (
    ORIENTATION,
    UNREADABLE,
    UPRIGHT,
    Extras,
    clean_exif,
    extras_of,
)
from .tiff import TIFF_STARTS, decode_tiff, finished_tiff

JPEG_START = b"\xff\xd8\xff"
PILLOW_FORMATS = ("PNG", "JPEG", "WEBP")
# Of a segment of JPEG, less its length and the names of EXIF and XMP.
MOST_JPEG_EXIF, MOST_JPEG_XMP, MOST_JPEG_COMMENT = 65533, 65504, 65533


def decode(path: Path, content: bytes | None = None, *, first_frame: bool = False) -> Samples:
    """Read a PNG, JPEG, WebP or TIFF file; the content decides the format, not the name.

    Args:
        path: of the file; or what errors call it, if its content comes with it.
        content: the file's bytes; None reads them from `path`.
        first_frame: of several frames or pages, read the first.

    Raises:
        SeveralPictures: there are several, without `first_frame`.
        BIRError: it cannot be decoded or is cut off; no memory for it.
        OSError: the file system refuses it.
    """
    source = Source(path, content, first_frame)
    with source.open() as file:
        start = file.read(25)
    is_tiff = start.startswith(TIFF_STARTS)
    sixteen_bit_png = start.startswith(PNG_START) and start[24:25] == b"\x10"
    reader = decode_tiff if is_tiff else _decode_wide_png if sixteen_bit_png else _decode_pillow
    try:
        return reader(source)
    except Undecodable as error:
        # Perhaps only what stands beside the samples is damaged.
        bare = None if is_tiff else without_side_data(source.read())
        if bare is None:
            raise
        try:
            samples = reader(replace(source, content=bare))
        except BIRError:
            raise error from error.__cause__
        left_out = (*samples.extras.left_out, "side data that cannot be read")
        return replace(samples, extras=replace(samples.extras, left_out=left_out))


def format_of(path: Path) -> Format | None:
    """The format that a file begins as, whatever its name; None for any other, and where there is
    none that can be read."""
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except (OSError, ValueError):  # of a name that no file can have
        return None
    if start.startswith(b"RIFF") and start.endswith(b"WEBP"):
        return "webp"
    starts: dict[Format, tuple[bytes, ...]] = {
        "png": (PNG_START,),
        "jpg": (JPEG_START,),
        "tiff": TIFF_STARTS,
    }
    return next((name for name, known in starts.items() if start.startswith(known)), None)


def require_codec(file_format: Format, *, wide: bool) -> None:
    """Raise BIRError if what writes a format, of 16 bits if `wide`, is not installed."""
    if file_format == "tiff" or (wide and file_format == "png"):
        load_libvips()


def encode(path: Path, samples: Samples, file_format: Format, quality: int) -> tuple[str, ...]:
    """Write uint8 or uint16 samples to a file; uint16 to PNG and TIFF only.

    Args:
        quality: 1 to 100, for JPEG and WebP.

    Returns:
        What of the side data this format cannot keep, in words.

    Raises:
        OSError: the file system or the encoder refuses.
    """
    samples, left_out = _fitting(samples, file_format)
    if file_format == "tiff":
        data = finished_tiff(encode_libvips(samples, "tiff"), samples)
    elif samples.values.dtype == np.uint16:
        data = encode_libvips(samples, file_format)
    else:
        data = _encode_pillow(samples, file_format, quality)
    if file_format == "png":
        data = _finished_png(data, samples)
    path.write_bytes(data)
    return left_out


def _fitting(samples: Samples, file_format: Format) -> tuple[Samples, tuple[str, ...]]:
    """The samples with the side data that a format can keep, and what it cannot."""
    left_out = list(samples.extras.left_out)
    icc = matching_icc(samples.icc, samples.values.shape[-1] < 3)
    if samples.icc and icc is None:
        left_out.append("the colour profile")
    exif, xmp, texts = samples.exif, samples.extras.xmp, samples.extras.texts
    resolution = samples.extras.resolution
    if file_format == "jpg":
        if exif and len(exif) > MOST_JPEG_EXIF:
            exif = None
            left_out.append("EXIF data too long for JPEG")
        if xmp and len(xmp) > MOST_JPEG_XMP:
            xmp = None
            left_out.append("XMP data too long for JPEG")
    elif file_format == "webp" and resolution:
        resolution = None
        left_out.append("the resolution")
    if file_format != "png":
        comments = [
            text
            for key, text in texts
            if key == "Comment" and len(text.encode("utf-8", "replace")) < MOST_JPEG_COMMENT
        ]
        kept = comments[:1] if file_format == "jpg" else []
        if len(texts) > len(kept):
            left_out.append("texts" if len(texts) - len(kept) > 1 else "a text")
        texts = tuple(("Comment", text) for text in kept)
    extras = Extras(xmp, resolution, texts)
    return replace(samples, icc=icc, exif=exif, extras=extras), tuple(dict.fromkeys(left_out))


def _decode_wide_png(source: Source) -> Samples:
    samples = decode_libvips(source, strict=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with source.open() as file, Image.open(file, formats=("PNG",)) as image:
                frames = getattr(image, "n_frames", 1)
                extras = extras_of(image, source.read())
    except UNREADABLE:  # of side data, whose samples are read already
        frames, extras = 1, Extras(left_out=("side data that cannot be read",))
    return with_side_data(samples, extras, also_left_out=left_out_frames(source, frames))


def _decode_pillow(source: Source) -> Samples:
    path = source.path
    try:
        with warnings.catch_warnings(), source.open() as file:
            # Pillow warns at half the size where it refuses; such pictures are fine here.
            # Its others are about side data, of which something is said here.
            warnings.simplefilter("ignore")
            with Image.open(file, formats=PILLOW_FORMATS) as image:
                # A photograph with previews, of which it is the first, is one picture.
                frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
                left_out = left_out_frames(source, frames)
                image.load()
                return _samples_from_pillow(image, source.read(), left_out)
    except BIRError:
        raise
    except UnidentifiedImageError as error:
        raise undecodable(path, _other_format(source)) from error
    except Image.DecompressionBombError as error:
        raise BIRError(
            f"Expected a picture of at most {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels in {path}, "
            "but it is larger; cut it into parts first."
        ) from error
    except MemoryError as error:
        raise too_large_for_memory(path) from error
    except Exception as error:  # whatever a decoder raises on damaged files
        raise undecodable(path, error) from error


def _other_format(source: Source) -> str:
    """In words, what a file is that is not read; from its head, nothing of it is decoded."""
    try:
        with warnings.catch_warnings(), source.open() as file, Image.open(file) as image:
            warnings.simplefilter("ignore")
            frames = getattr(image, "n_frames", 1)
            several = f" of {frames} frames or pages" if frames > 1 else ""
            return f"it is a {image.format} file{several}, a format that is not read"
    except Exception:  # whatever a reader raises on files that are none of its kind
        return "it is of no known format"


def _samples_from_pillow(
    image: Image.Image, content: bytes, frames_left_out: tuple[str, ...]
) -> Samples:
    extras, left_out = extras_of(image, content), list(frames_left_out)
    try:
        exif_of_file = image.getexif()
        orientation = exif_of_file.get(ORIENTATION)
        unread = bool(image.info.get("exif")) and not dict(exif_of_file)
        exif, whole = (None, False) if unread else clean_exif(exif_of_file)
    except UNREADABLE:  # of side data
        exif, whole, orientation = None, False, None
    if not whole:
        left_out.append("EXIF data that cannot be read")
    if orientation in UPRIGHT:
        image = image.transpose(UPRIGHT[orientation])
    icc = image.info.get("icc_profile")
    if image.mode == "CMYK":
        try:
            image, icc = _rgb_from_cmyk(image, icc)
        except (ImageCms.PyCMSError, OSError, ValueError):
            image, icc = _rgb_from_cmyk(image, None)
            left_out.append("a colour profile that cannot be read")
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    values = np.array(image.convert(mode + "A" * image.has_transparency_data))
    samples = Samples(values.reshape(*values.shape[:2], -1), icc, exif)
    return with_side_data(samples, extras, also_left_out=left_out)


def _rgb_from_cmyk(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, bytes | None]:
    """Through the embedded profile to sRGB; without one, by the plain formula."""
    if not icc:
        return image.convert("RGB"), None
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    converted = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
    assert converted is not None  # it is None for in-place conversion only
    return converted, srgb.tobytes()


def _encode_pillow(samples: Samples, file_format: Format, quality: int) -> bytes:
    values = samples.values[..., 0] if samples.values.shape[-1] == 1 else samples.values
    options: dict[str, Any] = {}
    if samples.icc:
        options["icc_profile"] = samples.icc
    if samples.exif:
        options["exif"] = samples.exif
    if samples.extras.xmp and file_format != "png":
        options["xmp"] = samples.extras.xmp
    if file_format == "jpg":
        options |= {"quality": quality, "subsampling": 0, "optimize": True}
        if samples.extras.resolution:
            options["dpi"] = samples.extras.resolution
        for _, comment in samples.extras.texts:
            options["comment"] = comment.encode("utf-8", "replace")
    elif file_format == "webp":
        options |= {"quality": quality, "method": 4, "exact": True}
    name = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[file_format]
    # To memory first: when the disk is nearly full, Pillow takes a part written for the whole.
    content = io.BytesIO()
    try:
        Image.fromarray(values).save(content, name, **options)
    except ValueError as error:  # such as a side too long for the format
        raise OSError(str(error)) from error
    return content.getvalue()


def _finished_png(content: bytes, samples: Samples) -> bytes:
    """With resolution, XMP, texts, and what else libvips does not write or makes up."""
    extras = samples.extras
    chunks = [] if extras.resolution is None else [png_resolution(extras.resolution)]
    if samples.exif and samples.values.dtype == np.uint16:
        chunks.append(png_exif(samples.exif))
    if extras.xmp:
        chunks.append(png_xmp(extras.xmp))
    chunks += [png_text(key, text) for key, text in extras.texts]
    return png_with(content, chunks)
