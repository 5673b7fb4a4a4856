"""Restore a picture or a folder of pictures with DiffIR or DiffBIR.

Pictures are PNG, JPEG, WebP or TIFF of any size, with 8 or 16 bits, grey or colour; transparency,
ICC profile and EXIF stay. The same seed gives the same picture, whatever else is in the folder."""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from tqdm import tqdm

from ..checkpoints import ModelInfo, load_model
from ..errors import BIRError
from ..images import resize
from ..memory import is_out_of_memory
from ..picture_files import (
    SIXTEEN_BIT_FORMATS,
    SUFFIXES,
    Picture,
    list_pictures,
    read_picture,
    require_format,
    require_free,
    write_picture,
)
from ..restore import restore
from ..weights import BUILTIN_NAMES, builtin_model_path
from . import restore_diffbir
from .options import DTYPES, add_device_arguments, choose_device, positive, seed, write_line

FORMAT_SUFFIXES = {"png": ".png", "jpg": ".jpg", "webp": ".webp", "tiff": ".tif"}
MASK_THRESHOLD = 0.5
DEFAULT_MODEL = "builtin-x4"
DIFFIR_ONLY = ("model", "mask", "strip")
# What torch says on CUDA and MPS, on Linux and macOS, and on Windows.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `bir restore`."""
    parser.add_argument("input", metavar="INPUT", type=Path, help="picture or folder of pictures")
    parser.add_argument(
        "output",
        metavar="OUTPUT",
        type=Path,
        help="file or existing folder for a picture; folder, made if needed, for a folder",
    )
    parser.add_argument("--method", choices=("diffir", "diffbir"), default="diffir")
    parser.add_argument(
        "--model",
        metavar="NAME|FILE",
        help=f"of DiffIR: {', '.join(BUILTIN_NAMES)} or a checkpoint file (default: "
        f"{DEFAULT_MODEL})",
    )
    parser.add_argument(
        "--mask",
        metavar="FILE|FOLDER",
        type=Path,
        help="for inpainting: a mask for all pictures, white in the hole, or a folder of masks "
        "named like the pictures",
    )
    parser.add_argument("--seed", type=seed, default=0, help="of the noise (default: 0)")
    add_device_arguments(parser)
    parser.add_argument(
        "--strip",
        metavar="ROWS",
        type=positive,
        help="rows of the working grid that are computed at a time; fewer take less memory; the "
        "result is the same (default: from free memory)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    parser.add_argument(
        "--format", choices=tuple(FORMAT_SUFFIXES), help="of the outputs (default: the inputs')"
    )
    parser.add_argument(
        "--bits", type=int, choices=(8, 16), help="of the outputs' samples (default: the inputs')"
    )
    parser.add_argument(
        "--quality",
        type=int,
        choices=range(1, 101),
        metavar="1-100",
        default=95,
        help="of JPEG and WebP (default: 95)",
    )
    parser.add_argument("--recursive", action="store_true", help="look into subfolders as well")
    restore_diffbir.add_arguments(parser)


# (image (1, 3, H, W) in [0, 1], mask or None, progress bar) -> restored image
RestorePicture = Callable[[Tensor, Tensor | None, "tqdm[Any]"], Tensor]


@dataclass(frozen=True)
class Job:
    """A picture to restore, and its mask, by their paths."""

    source: Path
    target: Path
    mask: Path | None


def run(options: argparse.Namespace) -> int:
    """Restore. A picture of a folder that cannot be read is named on stderr and left out; the
    others are restored, and the exit code is 2."""
    _require_options_of_method(options)
    jobs = _plan(options)
    device = choose_device(options.device)
    prepare = _prepare_diffbir if options.method == "diffbir" else _prepare_diffir
    restore_picture = prepare(options, device)
    failures = 0
    # `disable=None` shows bars on a terminal only.
    bar = tqdm(jobs, desc="pictures", unit="picture", disable=None if len(jobs) > 1 else True)
    for job in bar:
        try:
            picture = _read(job.source, options.bits)
            require_format(job.target, picture)
            mask = None if job.mask is None else _read_mask(job.mask, picture, job.source)
        except BIRError as error:
            if len(jobs) == 1:
                raise
            tqdm.write(f"bir: {error}", file=sys.stderr)
            failures += 1
            continue
        restored = _restore(picture, mask, restore_picture, device, job.source.name)
        job.target.parent.mkdir(parents=True, exist_ok=True)
        write_picture(job.target, restored, overwrite=options.overwrite, quality=options.quality)
        write_line(f"{job.target}  {_size(picture)} -> {_size(restored)}")
    if failures:
        raise BIRError(
            f"Expected {len(jobs)} readable pictures, but {failures} could not be restored "
            "(see above); mend or remove them."
        )
    return 0


def _plan(options: argparse.Namespace) -> list[Job]:
    """All pictures with their output paths, checked before any work is done."""
    source, output = options.input, options.output
    if source.is_dir():
        if output.exists() and not output.is_dir():
            raise BIRError(
                f"Expected a folder for the outputs of {source}, but {output} is a file; "
                "choose another name."
            )
        pictures = list_pictures(source, recursive=options.recursive)
        if source.resolve() != output.resolve():
            pictures = [path for path in pictures if output.resolve() not in path.resolve().parents]
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
    _require_free_targets(jobs, options.overwrite)
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


def _require_free_targets(jobs: list[Job], overwrite: bool) -> None:
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
        require_free(target, overwrite=overwrite)


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


def _require_mask_if_needed(info: ModelInfo, options: argparse.Namespace) -> None:
    model = options.model or DEFAULT_MODEL
    if info.task == "inpainting" and options.mask is None:
        raise BIRError(
            f"Expected a mask for the inpainting model {model}, but none came; "
            "give --mask with a picture that is white in the hole."
        )
    if info.task != "inpainting" and options.mask is not None:
        raise BIRError(
            f"Expected an inpainting model for --mask, but {model} is for {info.task}; "
            "choose another model or leave the mask out."
        )


def _read(path: Path, bits: int | None) -> Picture:
    picture = read_picture(path)
    return picture if bits is None else replace(picture, bits=bits)  # type: ignore[arg-type]


def _read_mask(path: Path, picture: Picture, source: Path) -> Tensor:
    mask = read_picture(path).image.mean(1, keepdim=True)
    if mask.shape[-2:] != picture.image.shape[-2:]:
        height, width = mask.shape[-2:]
        raise BIRError(
            f"Expected a mask of {_size(picture)} pixels for {source}, but {path} has "
            f"{width}x{height}; make it of the same size."
        )
    return (mask >= MASK_THRESHOLD).float()


def _restore(
    picture: Picture,
    mask: Tensor | None,
    restore_picture: RestorePicture,
    device: torch.device,
    name: str,
) -> Picture:
    with tqdm(desc=name, unit="step", leave=False, disable=None) as bar:
        try:
            image = restore_picture(picture.image.to(device), mask, bar)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise BIRError(
                f"Expected enough memory on {device} for {name}, but it ran out; "
                "give a smaller --strip or --tile, or --device cpu."
            ) from error
    image = image.cpu()
    alpha = picture.alpha
    if alpha is not None:
        alpha = resize(alpha, image.shape[-2], image.shape[-1]).clamp(0, 1)
    return replace(picture, image=image, alpha=alpha)


def _require_options_of_method(options: argparse.Namespace) -> None:
    """No option may be given that the method does not read."""
    names = DIFFIR_ONLY if options.method == "diffbir" else restore_diffbir.option_names()
    other = "diffir" if options.method == "diffbir" else "diffbir"
    given = [name for name in names if getattr(options, name) is not None]
    if given:
        raise BIRError(
            f"Expected options of --method {options.method}, but --{given[0].replace('_', '-')} "
            f"came, which belongs to --method {other}; leave it out or change the method."
        )


def _prepare_diffir(options: argparse.Namespace, device: torch.device) -> RestorePicture:
    name = options.model or DEFAULT_MODEL
    model = load_model(
        builtin_model_path(name) or name,
        device=device,
        dtype=DTYPES[options.dtype],
        architecture="diffir_s2",
    )
    _require_mask_if_needed(cast(ModelInfo, model.info), options)

    def run(image: Tensor, mask: Tensor | None, bar: "tqdm[Any]") -> Tensor:
        return restore(
            image,
            model,
            mask=mask,
            seed=options.seed,
            strip=options.strip,
            callback=_progress(bar),
        )

    return run


def _prepare_diffbir(options: argparse.Namespace, device: torch.device) -> RestorePicture:
    restore_image = restore_diffbir.prepare(options, device)

    def run(image: Tensor, mask: Tensor | None, bar: "tqdm[Any]") -> Tensor:
        show = _progress(bar)

        def report(stage: str, done: int, total: int) -> None:
            bar.set_postfix_str(stage, refresh=False)
            show(done, total)

        return restore_image(image, report)

    return run


def _progress(bar: "tqdm[Any]") -> Callable[[int, int], None]:
    def show(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return show


def _size(picture: Picture) -> str:
    height, width = picture.image.shape[-2:]
    return f"{width}x{height}"
