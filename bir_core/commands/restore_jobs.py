"""Which pictures `bir restore` reads and what it writes, checked before any work is done."""

import argparse
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ..errors import BIRError
from ..pictures.files import SIXTEEN_BIT_FORMATS, SUFFIXES, list_pictures, require_free

FORMAT_SUFFIXES = {"png": ".png", "jpg": ".jpg", "webp": ".webp", "tiff": ".tif"}


@dataclass(frozen=True)
class Job:
    """A picture to restore, and its mask, by their paths."""

    source: Path
    target: Path
    mask: Path | None


def plan_jobs(options: argparse.Namespace) -> list[Job]:
    """All pictures with their output paths; those that are there already too.

    Raises:
        BIRError: no picture or mask, an output of the wrong kind or in a place that cannot be
            written, one that exists without --overwrite or --resume, or is an input.
    """
    source, output = options.input, options.output
    if source.is_dir():
        if output.exists() and not output.is_dir():
            raise BIRError(
                f"Expected a folder for the outputs of {source}, but {output} is a file; "
                "choose another name."
            )
        pictures = list_pictures(source, recursive=options.recursive)
        if source.resolve() != output.resolve():
            inside = output.resolve()
            pictures = [path for path in pictures if inside not in path.resolve().parents]
        targets = [_with_format(output / path.relative_to(source), options) for path in pictures]
    else:
        if not source.exists():
            raise BIRError(
                f"Expected a picture or a folder at {source}, but found nothing; check the path."
            )
        pictures = [source]
        if output.is_dir():
            targets = [_with_format(output / source.name, options)]
        else:
            targets = [_checked_format(output, options)]
    _require_writable(output, make=source.is_dir())
    jobs = [
        Job(path, target, _mask_path(path, options))
        for path, target in zip(pictures, targets, strict=True)
    ]
    _require_targets(jobs, may_exist=options.overwrite or options.resume)
    return jobs


def _with_format(path: Path, options: argparse.Namespace) -> Path:
    suffix = FORMAT_SUFFIXES.get(options.format)
    return _checked_format(path if suffix is None else path.with_suffix(suffix), options)


def _checked_format(path: Path, options: argparse.Namespace) -> Path:
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
    folder = output if output.is_dir() else output.parent
    while make and not folder.exists():
        folder = folder.parent
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise BIRError(
            f"Expected a folder to write to at {folder}, but it cannot be used "
            f"({error.strerror}); choose another one or make it."
        ) from error


def _require_targets(jobs: list[Job], *, may_exist: bool) -> None:
    # By file number: it is the same under another name or spelling of the same file.
    inputs = {_file_number(path) for job in jobs for path in (job.source, job.mask) if path}
    for target, count in Counter(job.target for job in jobs).items():
        if target.exists() and _file_number(target) in inputs:
            raise BIRError(
                f"Expected an output that is not an input, but {target} is both; "
                "inputs are never replaced: choose another name or folder."
            )
        if count > 1:
            raise BIRError(
                f"Expected a name of its own for each output, but {target} would hold {count} "
                "pictures; rename them or leave out --format."
            )
        require_free(target, overwrite=may_exist)


def _file_number(path: Path) -> tuple[int, int] | None:
    """Device and number; None if there is no file, which is reported when it is read."""
    if not path.exists():
        return None
    status = path.stat()
    return status.st_dev, status.st_ino


def _mask_path(picture: Path, options: argparse.Namespace) -> Path | None:
    mask: Path | None = options.mask
    if mask is None or not mask.is_dir():
        return mask
    root = options.input if options.input.is_dir() else options.input.parent
    wanted = mask / picture.relative_to(root).with_suffix("")
    found = [wanted.with_suffix(suffix) for suffix in SUFFIXES]
    found = [path for path in found if path.is_file()]
    if not found:
        raise BIRError(
            f"Expected a mask for {picture} in the folder {mask}, but none is named "
            f"{wanted.name}.png or alike; add it."
        )
    return found[0]
