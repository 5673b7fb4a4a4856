"""The tags of TIFF files (TIFF 6.0, 1992, and BigTIFF): those that decoders do not act on, and
those that libvips does not write."""

import struct
from fractions import Fraction
from typing import BinaryIO

SUBFILE_TYPE, OLD_SUBFILE_TYPE = 254, 255
BITS_PER_SAMPLE, COMPRESSION, PHOTOMETRIC = 258, 259, 262
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
EXTRA_SAMPLES = 338
OLD_JPEG = 6
REDUCED, MASK = 1, 4  # bits of SUBFILE_TYPE
OLD_REDUCED = 2
ASSOCIATED, UNASSOCIATED = 1, 2  # kinds of alpha among EXTRA_SAMPLES

# More pages, or values of a tag, than any picture that is read here has.
_MOST_DIRECTORIES = 1000
_MOST_VALUES = 64
# Whole numbers: BYTE, SHORT, LONG, IFD, LONG8, IFD8.
_FORMATS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_SHORT, _RATIONAL = 3, 5

Directory = dict[int, tuple[int, ...]]


def read_directories(file: BinaryIO) -> list[Directory]:
    """The tags with whole numbers of each page, as far as they can be read."""
    start = file.read(16)
    order = "<" if start[:2] == b"II" else ">"
    directories: list[Directory] = []
    try:
        is_big = struct.unpack_from(order + "H", start, 2)[0] == 43
        place = struct.unpack_from(order + ("Q" if is_big else "I"), start, 8 if is_big else 4)[0]
        seen = set()
        while place and place not in seen and len(directories) < _MOST_DIRECTORIES:
            seen.add(place)
            directory, place = _read_directory(file, place, order, is_big)
            directories.append(directory)
    except (struct.error, OSError, OverflowError):
        pass  # the decoder will say what is wrong
    return directories


def _read_directory(file: BinaryIO, place: int, order: str, is_big: bool) -> tuple[Directory, int]:
    """The tags of a page, and where those of the next one are."""
    count_format, offset_format = ("Q", "Q") if is_big else ("H", "I")
    entry_size, value_size = (20, 8) if is_big else (12, 4)
    file.seek(place)
    (count,) = _unpack(file.read(struct.calcsize(count_format)), order + count_format)
    count = min(count, 65535)
    entries = file.read(entry_size * count)
    (following,) = _unpack(file.read(value_size), order + offset_format)
    directory: Directory = {}
    for index in range(count):
        entry = entries[index * entry_size : (index + 1) * entry_size]
        tag, kind, length = _unpack(entry[: entry_size - value_size], f"{order}HH{offset_format}")
        if kind not in _FORMATS or not 0 < length <= _MOST_VALUES:
            continue
        layout = f"{order}{length}{_FORMATS[kind]}"
        content = entry[-value_size:]
        if struct.calcsize(layout) > value_size:
            file.seek(_unpack(content, order + offset_format)[0])
            content = file.read(struct.calcsize(layout))
        directory[tag] = _unpack(content[: struct.calcsize(layout)], layout)
    return directory, following


def _unpack(content: bytes, layout: str) -> tuple[int, ...]:
    return struct.unpack(layout, content)


def with_resolution(content: bytes, resolution: tuple[float, float] | None) -> bytes:
    """A TIFF file as libvips writes it, with the right pixels per inch in the place of those that
    libvips makes up; without a unit if nothing is known."""
    order = "<" if content[:2] == b"II" else ">"
    if content[2:4] != struct.pack(order + "H", 42):
        return content  # BigTIFF: above 4 GB only
    changed = bytearray(content)
    place = struct.unpack_from(order + "I", content, 4)[0]
    values = {
        X_RESOLUTION: Fraction(1) if resolution is None else Fraction(resolution[0]),
        Y_RESOLUTION: Fraction(1) if resolution is None else Fraction(resolution[1]),
    }
    for index in range(struct.unpack_from(order + "H", content, place)[0]):
        entry = place + 2 + 12 * index
        tag, kind, _, at = struct.unpack_from(order + "HHII", content, entry)
        if tag in values and kind == _RATIONAL:
            value = values[tag].limit_denominator(1000)
            struct.pack_into(order + "II", changed, at, value.numerator, value.denominator)
        elif tag == RESOLUTION_UNIT and kind == _SHORT:
            unit = 1 if resolution is None else 2
            struct.pack_into(order + "HH", changed, entry + 8, unit, 0)
    return bytes(changed)


def with_directory(content: bytes, directory: bytes, place: int) -> bytes:
    """A TIFF file as libvips writes it, with further tags for its page; its own stay.

    Args:
        directory: a directory with its values, whose offsets count from the start of the file.
        place: where in the file it shall stand: behind `content`, at an even number of bytes.
    """
    order = "<" if content[:2] == b"II" else ">"
    entries: dict[int, bytes] = {}
    first = struct.unpack_from(order + "I", content, 4)[0]
    for source, start in ((directory, 0), (content, first)):
        for index in range(struct.unpack_from(order + "H", source, start)[0]):
            entry = source[start + 2 + 12 * index : start + 14 + 12 * index]
            entries[struct.unpack_from(order + "H", entry)[0]] = entry
    merged = struct.pack(order + "H", len(entries))
    merged += b"".join(entries[tag] for tag in sorted(entries)) + bytes(4)
    values = directory + bytes(len(directory) % 2)
    header = content[:4] + struct.pack(order + "I", place + len(values))
    return b"".join((header, content[8:], bytes(place - len(content)), values, merged))
