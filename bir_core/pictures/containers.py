"""The parts of PNG, JPEG and WebP files: samples without side data, side data without samples."""

import struct
import zlib
from collections.abc import Iterable, Iterator

PNG_START = b"\x89PNG\r\n\x1a\n"
# Of the parts that need not be understood, these change the samples' meaning.
_PNG_KEPT = (b"tRNS",)
_JPEG_KEPT = (0xE0, 0xEE)  # APP0 and Adobe's APP14, which says what the channels are
_WEBP_DROPPED = (b"ICCP", b"EXIF", b"XMP ")
_WEBP_FLAGS = 0x20 | 0x08 | 0x04  # that the dropped ones are there


def without_side_data(content: bytes) -> bytes | None:
    """A PNG, JPEG or WebP file without profile, EXIF and texts; None for another format, or if the
    parts cannot be told from each other."""
    try:
        if content.startswith(PNG_START):
            return PNG_START + b"".join(
                part
                for name, part in png_chunks(content)
                if name[:1].isupper() or name in _PNG_KEPT
            )
        if content.startswith(b"\xff\xd8"):
            return _bare_jpeg(content)
        if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
            return _bare_webp(content)
    except (struct.error, IndexError):
        pass
    return None


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name, and the whole chunk with length and checksum, of each chunk that is there."""
    place = len(PNG_START)
    while place + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, place)
        yield name, content[place : place + 12 + length]
        place += 12 + length
        if name == b"IEND":
            return


def png_chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_with(content: bytes, chunks: Iterable[bytes]) -> bytes:
    """A PNG file with further chunks behind its header, and without a resolution of its own."""
    parts = [part for name, part in png_chunks(content) if name != b"pHYs"]
    return b"".join((PNG_START, parts[0], *chunks, *parts[1:]))


def png_resolution(resolution: tuple[float, float]) -> bytes:
    """The chunk for pixels per inch."""
    columns, rows = (min(round(one / 0.0254), 2**31 - 1) for one in resolution)
    return png_chunk(b"pHYs", struct.pack(">IIB", columns, rows, 1))


def png_text(keyword: str, text: str) -> bytes:
    """The chunk for a text: Latin-1 if that holds it, else UTF-8."""
    key = keyword.encode("latin-1", "replace")[:79]
    try:
        return png_chunk(b"tEXt", key + b"\0" + text.encode("latin-1"))
    except UnicodeEncodeError:
        return png_chunk(b"iTXt", key + b"\0\0\0\0\0" + text.encode("utf-8", "replace"))


def png_exif(block: bytes) -> bytes:
    """The chunk for an EXIF block."""
    return png_chunk(b"eXIf", block.removeprefix(b"Exif\0\0"))


def png_xmp(packet: bytes) -> bytes:
    """The chunk for an XMP packet."""
    return png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)


def _bare_jpeg(content: bytes) -> bytes:
    parts, place = [content[:2]], 2
    while True:
        while content[place + 1] == 0xFF:  # fill bytes before a marker
            place += 1
        marker = content[place + 1]
        if content[place] != 0xFF or marker == 0xDA:
            return b"".join((*parts, content[place:]))
        (length,) = struct.unpack_from(">H", content, place + 2)
        is_side_data = 0xE0 <= marker <= 0xEF or marker == 0xFE
        if not is_side_data or marker in _JPEG_KEPT:
            parts.append(content[place : place + 2 + length])
        place += 2 + length


def _bare_webp(content: bytes) -> bytes:
    parts, place = [], 12
    while place + 8 <= len(content):
        name, length = struct.unpack_from("<4sI", content, place)
        part = content[place : place + 8 + length + length % 2]
        if name == b"VP8X":
            part = part[:8] + bytes([part[8] & ~_WEBP_FLAGS]) + part[9:]
        if name not in _WEBP_DROPPED:
            parts.append(part)
        place += len(part)
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body
