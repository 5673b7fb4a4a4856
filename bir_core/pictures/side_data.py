"""What a picture file keeps beside its samples: which of it goes on with the restored picture.

Broken side data never costs a picture: the bad part is left out and named.
"""

import math
import re
import struct
import zlib
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from .containers import png_chunks

# What Pillow's parsers raise on what somebody else wrote. Lack of memory is none of it: that says
# nothing of the file.
UNREADABLE = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, OSError),
    *(RuntimeError, SyntaxError, TypeError, ValueError, struct.error, zlib.error),
)
ORIENTATION = 0x0112
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
# What makes a picture upright, by its orientation.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
PIXEL_SIZES = (0xA002, 0xA003)
IPTC_IN_PHOTOSHOP = 0x0404
IPTC_TAG = 33723
XMP_KEYWORD = "XML:com.adobe.xmp"
OTHER_PROFILE = "a colour profile for another kind of picture"
GAIN_MAP = "an HDR gain map"
# Ultra HDR, ISO 21496-1, and Apple's name of its auxiliary picture.
GAIN_MAP_MARKS = (
    b"http://ns.adobe.com/hdr-gain-map/1.0/",
    b"urn:iso:std:iso:ts:21496:-1",
    b"urn:com:apple:photo:2020:aux:hdrgainmap",
)
# Namespaces of XMP that describe more than one picture: gain maps, depth, films and halves that
# stand behind it in the file, or the place of a part in a panorama, which resizing makes untrue.
XMP_OF_THE_FILE = (
    *(b"hdr-gain-map", b"HDRGainMap", b"photos/1.0/container", b"photos/1.0/camera"),
    *(b"photos/1.0/depthmap", b"photos/1.0/panorama", b"HasExtendedXMP"),
)
_UNTRUE = rb"tiff:(?:Orientation|ImageWidth|ImageLength)|exif:Pixel[XY]Dimension"
_UNTRUE_IN_XMP = re.compile(
    rb"\s+(?:" + _UNTRUE + rb")\s*=\s*(?:\"[^\"]*\"|'[^']*')"
    rb"|<(" + _UNTRUE + rb")(?:\s[^>]*)?>[^<]*</\1\s*>"
)


@dataclass(frozen=True)
class Extras:
    """Side data besides colour profile and EXIF.

    Attributes:
        xmp: XMP packet without what the restoration makes untrue.
        resolution: pixels per inch of the columns and of the rows.
        texts: keyword and text of each, such as an author or a comment.
        left_out: what the file held and does not go on, in words.
    """

    xmp: bytes | None = None
    resolution: tuple[float, float] | None = None
    texts: tuple[tuple[str, str], ...] = ()
    left_out: tuple[str, ...] = ()


def extras_of(image: Image.Image, content: bytes) -> Extras:
    """The extras of a picture that Pillow has opened.

    Args:
        content: of the file, or its beginning.
    """
    info = image.info
    text_keys = set(getattr(image, "text", ()))  # which only PNG files have
    left_out = []
    xmp = info.get("xmp")
    kept = clean_xmp(xmp) if isinstance(xmp, bytes) else None
    if any(mark in content for mark in GAIN_MAP_MARKS):
        left_out.append(GAIN_MAP)
    elif image.format == "MPO":
        left_out.append("further pictures in the file")
    if xmp and kept is None:
        left_out.append("XMP data")
    left_out += _unread(image, content, len(text_keys))
    texts, has_iptc = _texts(info, text_keys)
    if has_iptc:
        left_out.append("IPTC data")
    return Extras(kept, _resolution(image), texts, tuple(left_out))


def _unread(image: Image.Image, content: bytes, texts_read: int) -> list[str]:
    """What the file holds and Pillow passed over without a word."""
    has_profile, texts = b"ICC_PROFILE\0" in content, 0
    if image.format == "PNG":
        names = [name for name, _ in png_chunks(content)]
        has_profile = b"iCCP" in names
        texts = sum(names.count(name) for name in (b"tEXt", b"zTXt", b"iTXt"))
    unread = []
    if has_profile and not image.info.get("icc_profile"):
        unread.append("a colour profile that cannot be read")
    if texts > texts_read:
        unread.append("a text that cannot be read")
    return unread


def clean_xmp(xmp: bytes) -> bytes | None:
    """An XMP packet without orientation and sizes; None if it is no text or describes the file."""
    xmp = xmp.rstrip(b"\0")
    try:
        xmp.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if not xmp.strip() or any(mark in xmp for mark in XMP_OF_THE_FILE):
        return None
    return _UNTRUE_IN_XMP.sub(b"", xmp)


def _texts(
    info: Mapping[Any, Any], text_keys: Container[str]
) -> tuple[tuple[tuple[str, str], ...], bool]:
    """The texts, and whether IPTC data are there, which PNG has as a text in hexadecimal digits."""
    photoshop = info.get("photoshop")
    has_iptc = isinstance(photoshop, dict) and IPTC_IN_PHOTOSHOP in photoshop
    texts = []
    for key, value in info.items():
        if key == "comment" and isinstance(value, bytes):
            texts.append(("Comment", _decoded(value.rstrip(b"\0"))))
        elif isinstance(key, str) and key in text_keys and isinstance(value, str):
            if key.startswith("Raw profile type"):
                has_iptc = has_iptc or key.endswith(("iptc", "8bim"))
            elif key != XMP_KEYWORD:
                texts.append((key, str(value)))
    return tuple((key, text) for key, text in texts if text), has_iptc


def _decoded(text: bytes) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _resolution(image: Image.Image) -> tuple[float, float] | None:
    """As the container says it. What EXIF says stays in the EXIF data."""
    info = image.info
    if image.format in ("JPEG", "MPO"):
        per_inch = {1: 1.0, 2: 2.54}.get(info.get("jfif_unit", 0))
        density = info.get("jfif_density")
        if per_inch is None or density is None:
            return None
        return sensible_resolution(density[0] * per_inch, density[1] * per_inch)
    dpi = info.get("dpi") if image.format == "PNG" else None
    return None if dpi is None else sensible_resolution(*dpi)


def sensible_resolution(columns: Any, rows: Any) -> tuple[float, float] | None:
    """Pixels per inch, None if they cannot be."""
    try:
        pair = float(columns), float(rows)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return pair if all(math.isfinite(one) and 0.1 < one < 1e6 for one in pair) else None


def clean_exif(exif: Image.Exif) -> tuple[bytes | None, bool]:
    """The block to write again, None if nothing is left; and whether nothing else was lost."""
    whole = True
    try:
        exif.pop(ORIENTATION, None)
        inner = exif.get(EXIF_IFD)
        details = inner if isinstance(inner, dict) else exif.get_ifd(EXIF_IFD)
        for tag in PIXEL_SIZES:
            details.pop(tag, None)
    except UNREADABLE:
        whole = False
    if not dict(exif):
        return None, whole
    try:
        return exif.tobytes(), whole
    except UNREADABLE:  # a tag of another type than its name calls for
        return _writable_part(exif), False


def _writable_part(exif: Image.Exif) -> bytes | None:
    """The tags that can be written, each tried by itself."""
    kept = Image.Exif()
    for tag in list(exif):
        try:
            value = exif[tag]
            if tag in (EXIF_IFD, GPS_IFD) and not isinstance(value, dict):
                value = exif.get_ifd(tag)
        except UNREADABLE:
            continue
        if isinstance(value, dict):
            value = {key: inner for key, inner in value.items() if _is_writable(tag, {key: inner})}
        if value != {} and _is_writable(tag, value):
            kept[tag] = value
    try:
        return kept.tobytes() if dict(kept) else None
    except UNREADABLE:
        return None


def _is_writable(tag: int, value: Any) -> bool:
    alone = Image.Exif()
    try:
        alone[tag] = value
        alone.tobytes()
    except UNREADABLE:
        return False
    return True
