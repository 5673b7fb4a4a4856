"""One picture of `bir restore`, from file to file. All engines restore through this."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..atomic_files import complete_file, make_folder, writing
from ..command_line.console import one_line, printable
from ..command_line.options import choose_device, hint_at_dtype
from ..errors import BIRError
from ..fallbacks import enough_memory
from ..images import extend_opaque, resize
from ..memory import is_out_of_memory, picture_bytes, require_room
from ..methods import METHODS, Report, RestoreImage
from ..pictures.codecs import format_of
from ..pictures.files import (
    SUFFIXES,
    WRITING_PICTURES,
    Picture,
    read_picture,
    require_format,
    require_free,
    write_picture,
)
from ..pictures.samples import SeveralPictures
from . import restore_auto, restore_old_photo
from .failures import losses, no_room
from .restore_jobs import Job
from .restore_options import RestoreOptions


@dataclass(frozen=True)
class Outcome:
    """What became of a picture.

    Attributes:
        source: the picture's path.
        text: a line for the user, and below it, with two spaces, what --auto chose and why.
        is_restored: False if the picture could not be restored; `text` says why.
    """

    source: Path
    text: str
    is_restored: bool


def prepare(options: RestoreOptions) -> Callable[[Job, bool], Outcome]:
    """Load the model that the options name.

    Returns:
        A function that restores the picture of a job; its second argument allows to replace an
        output that exists. Everything about one picture is its outcome. It raises BIRError where
        going on has no sense: no space.

    Raises:
        BIRError: a device, model or setting that does not exist or does not fit.
    """
    device = choose_device(options.device)
    hint_at_dtype(options.dtype, device)
    plan = _planned(options, device)

    def restore_job(job: Job, overwrite: bool) -> Outcome:
        out_of_memory = (
            f"Expected enough memory on {device} for {job.source.name}, but it ran out; give a "
            "smaller --strip or --tile, or --device cpu."
        )
        try:
            with enough_memory(out_of_memory):
                return restored(job, overwrite)
        except BIRError as error:
            if no_room(error):
                raise
            return Outcome(job.source, one_line(str(error)), is_restored=False)

    def restored(job: Job, overwrite: bool) -> Outcome:
        if job.refusal:
            raise BIRError(job.refusal)
        # What can be known before the work is said before it.
        picture = _read(job.source, options.first_frame)
        if options.bits is not None:
            picture = replace(picture, bits=options.bits)  # type: ignore[arg-type]
        require_free(job.target, overwrite=overwrite)
        mask = _read_mask(job, picture, options)
        with _bar(job.source.name) as report:
            restore_image, scale, why = plan(picture, job.source, mask, report)
        require_format(job.target, picture, scale)
        _require_room(picture, scale, job.source)
        if restore_image is None:
            return _left_alone(job, picture, options, overwrite, why)
        result = _restore(picture, mask, restore_image, device, job.source.name)
        if options.try_crop is None:
            result = _with_alpha(result, picture.alpha)
        make_folder(job.target.parent)
        left_out = write_picture(job.target, result, overwrite=overwrite, quality=options.quality)
        text = f"{job.target}  {_size(picture)} -> {_size(result)}{losses(left_out)}"
        return Outcome(job.source, _lines(text, why), is_restored=True)

    return restore_job


def _planned(options: RestoreOptions, device: torch.device) -> restore_auto.PlanPicture:
    """What is done to each picture: what --auto chooses, or the same to all of them."""
    if options.old_photo is not None:
        return restore_old_photo.prepare(options, options.old_photo, device)
    if options.auto is not None:
        return restore_auto.prepare(options, options.auto, device)
    assert options.method is not None  # see `restore.read`
    restore_image, scale = METHODS[options.method].prepare(options.of_method, device)
    return lambda picture, source, mask, report: (restore_image, scale, ())


def _lines(text: str, why: tuple[str, ...]) -> str:
    return "\n".join((one_line(text), *(f"  {reason}" for reason in why)))


def _left_alone(
    job: Job, picture: Picture, options: RestoreOptions, overwrite: bool, why: tuple[str, ...]
) -> Outcome:
    """The output for a picture that needs nothing: its very file, or where another format was asked
    for the picture in it."""
    make_folder(job.target.parent)
    if _fits_as_it_is(job, picture, options):
        with writing(job.target, "the picture"), complete_file(job.target) as temporary:
            shutil.copyfile(job.source, temporary)
            require_free(job.target, overwrite=overwrite)
        text = f"{job.target}  {_size(picture)}  unchanged, the same bytes"
    else:
        left_out = write_picture(job.target, picture, overwrite=overwrite, quality=options.quality)
        kind = f"{picture.bits}-bit {SUFFIXES[job.target.suffix.lower()].upper()}"
        text = f"{job.target}  {_size(picture)}  unchanged, saved as {kind}{losses(left_out)}"
    return Outcome(job.source, _lines(text, why), is_restored=True)


def _fits_as_it_is(job: Job, picture: Picture, options: RestoreOptions) -> bool:
    """Whether the file is what was asked for: of the format and the bits, with one picture."""
    if format_of(job.source) != SUFFIXES[job.target.suffix.lower()]:
        return False
    if options.bits is None and not options.first_frame:
        return True
    try:
        return read_picture(job.source).bits == picture.bits
    except SeveralPictures:
        return False


def _require_room(picture: Picture, scale: float, source: Path) -> None:
    height, width = picture.image.shape[-2:]
    require_room(
        height,
        width,
        scale,
        lambda scale: picture_bytes(height * scale, width * scale, WRITING_PICTURES),
        name=f"The picture {source}",
    )


@contextmanager
def _bar(name: str) -> Iterator[Report]:
    """A bar that shows stage and progress."""
    with tqdm(desc=_bar_title(name), unit="step", leave=False, disable=None) as bar:
        yield _report(bar)


def _report(bar: "tqdm[Any]") -> Report:
    def show(stage: str, done: int, total: int) -> None:
        if stage:
            bar.set_postfix_str(stage, refresh=False)
        bar.total = total
        bar.update(done - bar.n)

    return show


def _read(path: Path, first_frame: bool) -> Picture:
    try:
        return read_picture(path, first_frame=first_frame)
    except SeveralPictures as error:
        raise BIRError(
            f"Expected one picture in {path}, but it holds {error.count} frames or pages; restore "
            "the first one by --first-frame, or split it into single pictures."
        ) from error


def _read_mask(job: Job, picture: Picture, options: RestoreOptions) -> Tensor | None:
    """(1, 1, H, W) in [0, 1]; what is transparent is outside the hole. None without a mask."""
    if job.mask is None:
        return None
    read = _read(job.mask, options.first_frame)
    mask = read.image.mean(1, keepdim=True)
    if read.alpha is not None:
        mask = mask * read.alpha
    if mask.shape[-2:] != picture.image.shape[-2:]:
        height, width = mask.shape[-2:]
        raise BIRError(
            f"Expected a mask of {_size(picture)} pixels for {job.source}, but {job.mask} has "
            f"{width}x{height}; make it of the same size."
        )
    return mask


def _restore(
    picture: Picture,
    mask: Tensor | None,
    restore_image: RestoreImage,
    device: torch.device,
    name: str,
) -> Picture:
    with _bar(name) as report:
        try:
            image = extend_opaque(picture.image, picture.alpha)
            image = restore_image(image.to(device), mask, report)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise BIRError(
                f"Expected the networks to restore {name} on {device}, but they failed "
                f"({error}); try another --device, and report this."
            ) from error
    return replace(picture, image=image.cpu(), alpha=None)


def _with_alpha(picture: Picture, alpha: Tensor | None) -> Picture:
    if alpha is None:
        return picture
    height, width = picture.image.shape[-2:]
    return replace(picture, alpha=resize(alpha, height, width).clamp(0, 1))


def _bar_title(name: str) -> str:
    return printable(one_line(name), sys.stderr)


def _size(picture: Picture) -> str:
    height, width = picture.image.shape[-2:]
    return f"{width}x{height}"
