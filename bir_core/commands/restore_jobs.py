"""Which pictures `bir restore` reads and what it writes, checked before any work is done."""

import itertools
import os
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ..atomic_files import file_number
from ..errors import BIRError
from ..pictures.codecs import require_codec
from ..pictures.files import (
    SIXTEEN_BIT_FORMATS,
    SUFFIXES,
    find_pictures,
    list_pictures,
    require_free,
    require_name,
    require_no_input,
)
from .failures import say_left_out
from .restore_options import FORMAT_SUFFIXES, RestoreOptions

# What stands at the end of an output's name that nobody chose.
RESTORED = "_restored"


@dataclass(frozen=True)
class Job:
    """A picture to restore, and its mask, by their paths.

    Attributes:
        refusal: why it cannot be done, "" if nothing speaks against it.
    """

    source: Path
    target: Path
    mask: Path | None
    refusal: str = ""


def plan_jobs(options: RestoreOptions) -> list[Job]:
    """All pictures with their output paths; those that are there already too. What is wrong with
    one of them is its refusal.

    Raises:
        BIRError: no picture, outputs of the wrong kind or in a place that cannot be written, one
            that exists without --overwrite or --resume, or is an input.
    """
    source = options.input
    output = _beside(source, options) if options.output is None else options.output
    if os.path.isdir(source):
        if not os.path.isdir(output) and output.suffix.lower() in SUFFIXES:
            raise BIRError(
                f"Expected a folder for the outputs of the folder {source}, but {output} is the "
                "name of a picture; name a folder, or leave the output out."
            )
        if os.path.exists(output) and not os.path.isdir(output):
            raise BIRError(
                f"Expected a folder for the outputs of {source}, but {output} is a file; "
                "choose another name."
            )
        pictures = list_pictures(source, recursive=options.recursive)
        say_left_out(find_pictures(source, recursive=options.recursive)[1], source)
        if _real(source) != _real(output):
            inside = _real(output)
            pictures = [path for path in pictures if inside not in _real(path).parents]
        targets = [_with_format(output / path.relative_to(source), options) for path in pictures]
    else:
        if not os.path.exists(source):
            raise BIRError(
                f"Expected a picture or a folder at {source}, but found nothing; check the path."
            )
        pictures = [source]
        if os.path.isdir(output):
            targets = [_with_format(output / source.name, options)]
        else:
            targets = [_checked_format(output, options)]
    _require_writable(output, make=os.path.isdir(source))
    jobs = [_job(path, target, options) for path, target in zip(pictures, targets, strict=True)]
    _require_targets(jobs, may_exist=options.may_replace)
    return jobs


def _beside(source: Path, options: RestoreOptions) -> Path:
    """The output for an input when none was named: a name that is free, or where outputs may be
    there already the first one."""
    place = Path(os.path.abspath(source))
    if not place.name:
        raise BIRError(
            f"Expected an output for {source}, beside which nothing can be written; name a folder."
        )
    if os.path.isdir(source):
        stem, suffix = place.name, ""
    else:
        kept = place.suffix if place.suffix.lower() in SUFFIXES else FORMAT_SUFFIXES["png"]
        stem, suffix = place.stem, FORMAT_SUFFIXES.get(options.format or "", kept)
    folder = place.parent if source.name in ("", "..") else source.parent
    numbers = itertools.chain([""], (f"_{number}" for number in itertools.count(2)))
    outputs = (folder / f"{stem}{RESTORED}{number}{suffix}" for number in numbers)
    return next(each for each in outputs if options.may_replace or not os.path.lexists(each))


def _real(path: Path) -> Path:
    """Without links; unlike `Path.resolve` it takes those that lead in circles."""
    return Path(os.path.realpath(path))


def _job(source: Path, target: Path, options: RestoreOptions) -> Job:
    try:
        require_name(target)
        require_codec(SUFFIXES[target.suffix.lower()], wide=options.bits == 16)
        return Job(source, target, _mask_path(source, options))
    except BIRError as error:
        return Job(source, target, None, refusal=str(error))


def _with_format(path: Path, options: RestoreOptions) -> Path:
    suffix = None if options.format is None else FORMAT_SUFFIXES[options.format]
    return _checked_format(path if suffix is None else path.with_suffix(suffix), options)


def _checked_format(path: Path, options: RestoreOptions) -> Path:
    file_format = SUFFIXES.get(path.suffix.lower())
    if file_format is None:
        raise BIRError(
            f"Expected an output name that ends in {', '.join(SUFFIXES)}, or an existing folder, "
            f"but {path} came; change the ending."
        )
    if options.format not in (None, file_format):
        raise BIRError(
            f"Expected an output name for --format {options.format}, but {path} came; "
            "change the ending or leave the option out."
        )
    if options.bits == 16 and file_format not in SIXTEEN_BIT_FORMATS:
        raise BIRError(
            f"Expected a format that holds 16 bits (PNG, TIFF), but --bits 16 came for {path}; "
            "change the format or leave the option out."
        )
    return path


def _require_writable(output: Path, *, make: bool) -> None:
    """Find out now, not after the work, whether files can be made where they shall go."""
    folder = output if os.path.isdir(output) else output.parent
    while make and not os.path.exists(folder) and folder != folder.parent:
        folder = folder.parent
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise BIRError(
            f"Expected a folder to write to at {folder}, but it cannot be used "
            f"({error.strerror}); choose another one or make it."
        ) from error


def _require_targets(jobs: list[Job], *, may_exist: bool) -> None:
    targets = Counter(job.target for job in jobs if not job.refusal)
    require_no_input(targets, [path for job in jobs for path in (job.source, job.mask) if path])
    for target, count in targets.items():
        if count > 1:
            raise BIRError(
                f"Expected a name of its own for each output, but {target} would hold {count} "
                "pictures; rename them or leave out --format."
            )
        require_free(target, overwrite=may_exist)


def _mask_path(picture: Path, options: RestoreOptions) -> Path | None:
    mask = options.mask
    if mask is None or not os.path.isdir(mask):
        return mask
    root = options.input if os.path.isdir(options.input) else options.input.parent
    folder = mask / picture.relative_to(root).parent
    same_name = folder / picture.name
    if os.path.isfile(same_name):
        return same_name
    names = [picture.stem + end for suffix in SUFFIXES for end in (suffix, suffix.upper())]
    found = {file_number(folder / name): folder / name for name in names}
    found.pop(None, None)
    if not found:
        raise BIRError(
            f"Expected a mask for {picture} in the folder {mask}, but none is named "
            f"{picture.stem}.png or alike; add it."
        )
    first, *others = found.values()
    if others:
        raise BIRError(
            f"Expected one mask for {picture}, but {first} and {others[0].name} came; name one of "
            "them like the picture or remove it."
        )
    return first
