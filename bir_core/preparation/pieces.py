"""What is made of one picture of a set: sizes, squares, and low-quality partners."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import BIRError
from ..images import from_channels_last, resize, to_channels_last
from ..pictures.files import Picture, read_picture, write_picture
from ..pictures.sizes import picture_size
from .layout import Source
from .sets import Part


@dataclass(frozen=True)
class Piece:
    """A result.

    Attributes:
        name: of its file.
        size: height and width of the whole picture that it is taken from, after resizing.
        box: top, left, height and width in it.
    """

    name: str
    size: tuple[int, int]
    box: tuple[int, int, int, int]


def pieces_of(source: Source, scale: int) -> list[Piece]:
    """The results of a picture, from its size alone.

    Args:
        scale: side of hq divided by side of the lq that is made; sizes are cut to multiples of it.

    Raises:
        BIRError: it cannot be read, or has another size than its set or its partner.
    """
    part = source.part
    size = picture_size(source.hq)
    if part.size is not None and size != part.size:
        raise BIRError(
            f"Expected {source.hq} to be {_words(part.size)} as published, but it is "
            f"{_words(size)}; get the original files."
        )
    if source.lq is not None and picture_size(source.lq) != size:
        raise BIRError(
            f"Expected {source.lq} to be {_words(size)} as {source.hq}, but it is "
            f"{_words(picture_size(source.lq))}; unpack both again."
        )
    pieces = []
    for suffix, (height, width) in _sizes(part, size):
        cut_height, cut_width = height - height % scale, width - width % scale
        boxes = [(0, 0, cut_height, cut_width)]
        if part.cuts is not None:
            side = part.cuts.side
            boxes = [
                (top, left, side, side)
                for top in part.cuts.places(cut_height)
                for left in part.cuts.places(cut_width)
            ]
        for number, box in enumerate(boxes, 1):
            name = source.stem + suffix + (f"_s{number:03d}" if part.cuts else "") + ".png"
            pieces.append(Piece(name, (height, width), box))
    return pieces


def write_pieces(source: Source, pieces: list[Piece], folder: Path, scale: int) -> None:
    """Make those results of a picture that are not there yet.

    Args:
        folder: of its part's results, with `hq` and `lq` in it if there are pairs.

    Raises:
        BIRError: it cannot be read, or a result cannot be written.
    """
    wanted = [piece for piece in pieces if not _is_there(piece, source, folder, scale)]
    hq = read_picture(source.hq)
    lq = None if source.lq is None else read_picture(source.lq)
    for size in dict.fromkeys(piece.size for piece in wanted):
        whole = _resized(hq.image, size)
        low, divisor = (None if lq is None else lq.image), 1
        if scale > 1:
            height, width = (side - side % scale for side in size)
            whole, divisor = whole[..., :height, :width], scale
            low = resize(whole, height // scale, width // scale, "matlab")
        for piece in wanted:
            if piece.size != size:
                continue
            files = files_of(piece, source, folder, scale)
            _write(files[0], hq, whole, piece.box, 1)
            if low is not None:
                _write(files[1], hq, low, piece.box, divisor)


def files_of(piece: Piece, source: Source, folder: Path, scale: int) -> list[Path]:
    """The file of a result, or those of its pair, hq first."""
    place = folder / source.part.output
    if source.lq is None and scale == 1:
        return [place / piece.name]
    return [place / "hq" / piece.name, place / "lq" / piece.name]


def _is_there(piece: Piece, source: Source, folder: Path, scale: int) -> bool:
    return all(path.is_file() for path in files_of(piece, source, folder, scale))


def _sizes(part: Part, size: tuple[int, int]) -> list[tuple[str, tuple[int, int]]]:
    """Suffixes of names and sizes of the pictures that are made of one."""
    if part.side is not None:
        return [("", (part.side, part.side))]
    sizes = [("", size)]
    factors = list(part.factors)
    height, width = size
    if part.shortest is not None:
        factors.append(part.shortest / min(size))
    for number, factor in enumerate(factors):
        scaled = int(height * factor), int(width * factor)
        if part.shortest is not None and number == len(part.factors):
            scaled = (part.shortest, scaled[1]) if height <= width else (scaled[0], part.shortest)
        sizes.append((f"T{number}", scaled))
    return sizes


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(1, 3, H, W) in 8 bits by Pillow's Lanczos filter, which Real-ESRGAN took for its sizes."""
    if tuple(image.shape[-2:]) == size:
        return image
    values = (to_channels_last(image)[0] * 255).round().to(torch.uint8).numpy()
    resized = Image.fromarray(values).resize(size[::-1], Image.Resampling.LANCZOS)
    return from_channels_last(torch.from_numpy(np.array(resized))[None].float() / 255)


def _write(
    path: Path, source: Picture, image: Tensor, box: tuple[int, int, int, int], divisor: int
) -> None:
    top, left, height, width = (side // divisor for side in box)
    piece = image[..., top : top + height, left : left + width]
    picture = Picture(piece.clamp(0, 1), is_grey=source.is_grey, icc=source.icc)
    write_picture(path, picture, overwrite=True)


def _words(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
