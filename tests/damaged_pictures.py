"""Picture files made byte by byte: TIFF with any tags, and files that are damaged on purpose."""

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image

KINDS = {"B": 1, "H": 3, "I": 4}


def tiff(width, height, bits, photometric, strips, *, compression=1, more=(), samples=None):
    """A little-endian TIFF file.

    Args:
        bits: of each sample of a pixel.
        strips: the bytes of each strip; with tags 322 and 323 in `more`, of each tile.
        more: further tags, each (tag, "B", "H" or "I", whole numbers); "@" in the place of the
            numbers gives the places of the strips.
    """
    body, places = b"", []
    for strip in strips:
        places.append(8 + len(body))
        body += strip + bytes(len(strip) % 2)
    lengths = [len(strip) for strip in strips]
    is_tiled = any(tag == 322 for tag, *_ in more)
    tags = [
        (256, "I", [width]),
        (257, "I", [height]),
        (258, "H", list(bits)),
        (259, "H", [compression]),
        (262, "H", [photometric]),
        (324 if is_tiled else 273, "I", places),
        (277, "H", [samples or len(bits)]),
        (325 if is_tiled else 279, "I", lengths),
        *((tag, kind, places if values == "@" else values) for tag, kind, values in more),
    ]
    if not is_tiled:
        tags.append((278, "I", [height // len(strips)]))
    start = 8 + len(body)
    values_start = start + 2 + 12 * len(tags) + 4
    entries = values = b""
    for tag, kind, numbers in sorted(tags):
        content = struct.pack(f"<{len(numbers)}{kind}", *numbers)
        place = content.ljust(4, b"\0")
        if len(content) > 4:
            place = struct.pack("<I", values_start + len(values))
            values += content + bytes(len(content) % 2)
        entries += struct.pack("<HHI", tag, KINDS[kind], len(numbers)) + place
    return b"".join(
        (b"II*\0", struct.pack("<I", start), body, struct.pack("<H", len(tags)), entries)
        + (bytes(4), values)
    )


def jpeg(values):
    """uint8 (H, W, 3) as a JPEG file of the best quality."""
    file = io.BytesIO()
    Image.fromarray(values).save(file, "JPEG", quality=100, subsampling=0)
    return file.getvalue()


def gradient(height=32, width=32):
    """uint8 (H, W, 3), smooth, so that JPEG changes it little."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 3 + 20, columns * 3 + 60, rows + columns + 100], -1).astype(np.uint8)


def write(path: Path, content: bytes) -> Path:
    """Write a file; its path."""
    path.write_bytes(content)
    return path
