"""`bir degrade`: make low-quality pictures from good ones."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..atomic_files import complete_file
from ..degradations import degrade, get_preset, preset_names
from ..errors import BIRError
from ..images import resize
from ..picture_files import list_pictures, read_picture, require_free, write_picture

# What torch.Generator.manual_seed takes without wrapping around.
LARGEST_SEED = 2**63 - 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `bir degrade`."""
    parser.add_argument("input", type=Path, help="a picture, or a folder of pictures")
    parser.add_argument(
        "output",
        type=Path,
        help="a picture; for a folder, the folder of the results, which are PNG to keep them "
        "exactly as they were made",
    )
    parser.add_argument(
        "--preset",
        default="simple_x4",
        metavar="NAME",
        help=f"one of {', '.join(preset_names())} (default: %(default)s)",
    )
    parser.add_argument(
        "--scale", type=int, help="how many times smaller, instead of the preset's own scale"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the first picture; each further one has the next (default: %(default)s)",
    )
    parser.add_argument(
        "--draws", type=Path, metavar="FILE", help="also write every drawn value to this JSON file"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")


def run(args: argparse.Namespace) -> int:
    """Degrade one picture or a folder of them.

    Raises:
        BIRError: an unknown preset, a bad seed or scale, no picture, or an output that exists.
    """
    preset = get_preset(args.preset)
    jobs = _jobs(args.input, args.output)
    if not 0 <= args.seed <= LARGEST_SEED - len(jobs):
        raise BIRError(
            f"The seed should be in 0..{LARGEST_SEED - len(jobs)}, but {args.seed} came; "
            "choose another one."
        )
    _require_free_outputs(jobs, args.draws, overwrite=args.overwrite)
    if args.input.is_dir():
        _make_folder(args.output)
    records = {}
    for index, (source, target) in enumerate(tqdm(jobs, unit="picture", disable=len(jobs) == 1)):
        picture = read_picture(source)
        seed = args.seed + index
        degraded = degrade(
            picture.image,
            preset,
            generator=torch.Generator().manual_seed(seed),
            scale=args.scale,
        )
        alpha = picture.alpha
        if alpha is not None:
            # The part of the picture that lq shows, at its size.
            alpha = alpha[..., : degraded.hq.shape[-2], : degraded.hq.shape[-1]]
            height, width = degraded.lq.shape[-2:]
            alpha = resize(alpha, height, width, "area")
        lq = replace(picture, image=degraded.lq, alpha=alpha, bits=8)
        write_picture(target, lq, overwrite=args.overwrite)
        records[source.name] = {"output": target.name, "seed": seed, "draws": degraded.draws}
    if args.draws is not None:
        _write_draws(args.draws, {"preset": args.preset, "scale": args.scale, "pictures": records})
    return 0


def _jobs(source: Path, target: Path) -> list[tuple[Path, Path]]:
    """Pairs of a picture and the file of its result."""
    if not source.is_dir():
        return [(source, target)]
    jobs = [(path, target / f"{path.stem}.png") for path in list_pictures(source)]
    owners: dict[Path, Path] = {}
    for path, result in jobs:
        if result in owners:
            raise BIRError(
                f"Pictures of a folder should differ in the name before the ending, but "
                f"{owners[result].name} and {path.name} would both become {result.name}; "
                "rename one."
            )
        owners[result] = path
    return jobs


def _require_free_outputs(
    jobs: list[tuple[Path, Path]], draws: Path | None, *, overwrite: bool
) -> None:
    """Raise BIRError before any work if a result would replace an input or a file to be kept."""
    taken = {source.resolve() for source, _ in jobs}
    for target in [target for _, target in jobs] + ([] if draws is None else [draws]):
        if target.resolve() in taken:
            raise BIRError(
                f"An output should not replace an input or another output, but {target} would; "
                "choose another name or folder."
            )
        taken.add(target.resolve())
        require_free(target, overwrite=overwrite)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BIRError(
            f"Expected a folder for the results at {folder}, but it cannot be made "
            f"({error.strerror}); choose another one."
        ) from error


def _plain(value: object) -> object:
    """What json cannot write by itself: tensors become lists."""
    if isinstance(value, Tensor):
        return value.tolist()
    raise TypeError(f"no JSON form for {type(value).__name__}")


def _write_draws(path: Path, record: dict[str, object]) -> None:
    text = json.dumps(record, indent=2, default=_plain) + "\n"
    try:
        with complete_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BIRError(
            f"Expected to write the drawn values to {path}, but it failed "
            f"({error.strerror or error}); check the folder and the free space."
        ) from error
