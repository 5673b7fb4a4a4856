"""The quantisation table of a JPEG file."""

from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile


def luma_table(path: str | Path) -> tuple[int, ...] | None:
    """The 64 steps of brightness in a JPEG file, by rows from low to high frequencies; None for a
    file of another format."""
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            table = image.quantization.get(0) if isinstance(image, JpegImageFile) else None
    except UnidentifiedImageError:
        return None
    return None if table is None else tuple(table)
