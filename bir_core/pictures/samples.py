"""What a picture file is and holds, and the sentence for one that cannot be decoded."""

import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

from numpy.typing import NDArray

from ..errors import BIRError
from .side_data import OTHER_PROFILE, Extras

Format = Literal["png", "jpg", "webp", "tiff"]
_MOST_REASON = 200  # characters


@dataclass(frozen=True)
class Source:
    """A picture file to read.

    Attributes:
        path: of the file; or what errors call it, if its content comes with it.
        content: the file's bytes; None reads them from `path`.
        first_frame: whether of several frames or pages the first is meant.
    """

    path: Path
    content: bytes | None = None
    first_frame: bool = False

    def open(self) -> BinaryIO:
        return open(self.path, "rb") if self.content is None else io.BytesIO(self.content)

    def read(self) -> bytes:
        return self.path.read_bytes() if self.content is None else self.content


@dataclass(frozen=True)
class Samples:
    """What a file holds, upright.

    Attributes:
        values: (H, W, C), uint8, uint16, or floating point in [0, 1]; C is 1 grey, 2 grey and
            alpha, 3 RGB, 4 RGB and alpha. The colours are not multiplied by alpha.
        icc: ICC profile of the colours.
        exif: EXIF block without orientation and pixel sizes, which would no longer be true.
        extras: the rest of the side data.
    """

    values: NDArray[Any]
    icc: bytes | None
    exif: bytes | None
    extras: Extras = Extras()


class Undecodable(BIRError):
    """A file is no picture, or a damaged one."""


class SeveralPictures(BIRError):
    """A file holds several frames or pages, and nobody said that the first is meant.

    Attributes:
        count: of them.
    """

    def __init__(self, sentence: str, count: int) -> None:
        super().__init__(sentence)
        self.count = count


def undecodable(path: Path, reason: object) -> Undecodable:
    """The error for a file that is no picture, or a damaged one.

    Args:
        reason: what a decoder said; of an exception without words its name is taken.
    """
    words = " ".join(str(reason).split())
    if not words:
        words = "no reason is given" if isinstance(reason, str) else type(reason).__name__
    return Undecodable(
        f"Expected a whole PNG, JPEG, WebP or TIFF picture in {path}, but it cannot be decoded "
        f"({words[:_MOST_REASON]}); check or convert the file."
    )


def too_large_for_memory(path: Path) -> BIRError:
    """The error for a picture whose samples do not fit."""
    return BIRError(
        f"Expected enough memory to read {path}, but it ran out; cut the picture into parts."
    )


def left_out_frames(source: Source, count: int) -> tuple[str, ...]:
    """What is left out of a file with `count` frames or pages, of which the first is read.

    Raises:
        SeveralPictures: there are several, and the first is not what is meant.
    """
    if count > 1 and not source.first_frame:
        raise SeveralPictures(
            f"Expected one picture in {source.path}, but it holds {count} frames or pages; "
            "split it into single pictures first.",
            count,
        )
    others = count - 1
    return (f"frames or pages after the first: {others}",) if others > 0 else ()


def matching_icc(icc: bytes | None, grey: bool) -> bytes | None:
    """The profile if it is for this kind of picture; encoders refuse any other."""
    return icc if icc and icc[16:20] == (b"GRAY" if grey else b"RGB ") else None


def with_side_data(
    samples: Samples, extras: Extras, *, also_left_out: Iterable[str] = ()
) -> Samples:
    """The samples with extras, without a profile for another kind of picture, and with all that was
    left out on the way."""
    icc = matching_icc(samples.icc, samples.values.shape[-1] < 3)
    unfit = (OTHER_PROFILE,) if samples.icc and icc is None else ()
    left_out = (*samples.extras.left_out, *also_left_out, *unfit, *extras.left_out)
    return replace(samples, icc=icc, extras=replace(extras, left_out=left_out))
