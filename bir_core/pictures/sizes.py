"""The size of a picture without its pixels."""

from pathlib import Path

from PIL import Image, UnidentifiedImageError

from ..errors import BIRError

_ORIENTATION = 0x0112
_FIRST_TURNED = 5  # from this orientation on, sides change places


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width of a picture file as it is shown, from its header.

    Raises:
        BIRError: it cannot be read.
    """
    try:
        with Image.open(path) as opened:
            width, height = opened.size
            turned = opened.getexif().get(_ORIENTATION, 1) >= _FIRST_TURNED
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise BIRError(
            f"Expected a picture in {path}, but its header cannot be read ({error}); get the file "
            "again."
        ) from error
    return (width, height) if turned else (height, width)
