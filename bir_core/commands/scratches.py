"""Find scratches, creases, dust, hairs and stains in a scan, as a mask: white where it is damaged.

The mask goes to whatever fills holes: `bir restore --mask` with a DiffIR for inpainting, or an
editor, in which it can be corrected. A folder gives a folder of PNG files."""

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..atomic_files import make_folder
from ..command_line.console import one_line
from ..command_line.options import add_picture_arguments, choose_device, read_options, write_line
from ..errors import BIRError
from ..estimate.scratches import (
    BUILTIN,
    GROW,
    THRESHOLD,
    damage_mask,
    find_damage,
    load_finder,
    shown_damage,
)
from ..fallbacks import enough_memory
from ..images import extend_opaque
from ..networks.damage import DamageFinder
from ..old_photo.filling import WIDEST
from ..pictures.files import (
    Picture,
    find_pictures,
    read_picture,
    require_free,
    require_no_input,
    write_picture,
)
from .degrade import result_files
from .failures import Failures, no_memory_for, no_room, say_left_out


@dataclass(frozen=True, kw_only=True)
class ScratchesOptions:
    """What `bir scratches` is asked for; as its arguments."""

    input: Path
    mask: Path
    model: str = BUILTIN
    threshold: float = THRESHOLD
    grow: int = GROW
    widest: int | None = None
    preview: Path | None = None
    device: str = "auto"
    overwrite: bool = False


read = partial(read_options, ScratchesOptions)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `bir scratches`."""
    add_picture_arguments(parser, "mask")
    parser.add_argument(
        "--model",
        metavar="FILE",
        help=f"network that finds damage, as `bir train builtin_scratches` makes it (default: "
        f"{BUILTIN})",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=THRESHOLD,
        help="how likely a pixel must be damaged, above 0 and up to 1; lower finds more, also of "
        f"what is none (default: {THRESHOLD})",
    )
    parser.add_argument(
        "--grow",
        metavar="PIXELS",
        type=int,
        default=GROW,
        help=f"take so many pixels around it as well, 0 or more (default: {GROW})",
    )
    parser.add_argument(
        "--widest",
        metavar="PIXELS",
        type=int,
        help="leave out what is wider than this with the pixels around it, which cannot be filled "
        f"from its surroundings; {WIDEST} for builtin-inpaint (default: take all)",
    )
    parser.add_argument(
        "--preview",
        metavar="PATH",
        type=Path,
        help="also write the pictures with the damage in red; as MASK",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="where to compute; auto takes a GPU if there is one (default: auto)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that exist")


def run(options: ScratchesOptions) -> int:
    """Find the damage of a picture or of a folder of them. A picture that cannot be read is named
    on stderr, the others go on; the exit code is 2.

    Raises:
        BIRError: no model, no picture, an output that exists, a threshold or number that is none.
    """
    damage_mask(torch.zeros(1, 1, 1, 1), *_limits(options))  # before any work
    jobs = result_files(options.input, options.mask)
    previews = [] if options.preview is None else result_files(options.input, options.preview)
    _require_free_outputs(jobs, previews, overwrite=options.overwrite)
    model = load_finder(options.model, device=choose_device(options.device))
    if options.input.is_dir():
        say_left_out(find_pictures(options.input)[1], options.input)
        for folder in filter(None, (options.mask, options.preview)):
            make_folder(folder)
    failures = Failures(len(jobs))
    # `disable=None` shows the bar on a terminal only.
    bar = tqdm(jobs, unit="picture", disable=None if len(jobs) > 1 else True)
    for index, (source, target) in enumerate(bar):
        preview = previews[index][1] if previews else None
        try:
            with enough_memory(no_memory_for(source)):
                line = _find(source, target, preview, model, options)
        except BIRError as error:
            if no_room(error):
                raise
            failures.add(source, str(error))
            continue
        write_line(one_line(line))
    failures.require_none("searched")
    return 0


def _find(
    source: Path,
    target: Path,
    preview: Path | None,
    model: DamageFinder,
    options: ScratchesOptions,
) -> str:
    """Write the mask of a picture, and its preview if it has a place; returns a line for the
    user."""
    picture = read_picture(source)
    image = extend_opaque(picture.image, picture.alpha)
    device = next(model.parameters()).device
    probability = find_damage(image.to(device), model).cpu()
    mask = damage_mask(probability, *_limits(options))
    _write(target, mask.expand(-1, 3, -1, -1), is_grey=True, overwrite=options.overwrite)
    if preview is not None:
        _write(preview, shown_damage(image, mask), is_grey=False, overwrite=options.overwrite)
    return f"{target}  {float(mask.mean()):.2%} damaged"


def _limits(options: ScratchesOptions) -> tuple[float, int, int | None]:
    return options.threshold, options.grow, options.widest


def _write(path: Path, image: Tensor, *, is_grey: bool, overwrite: bool) -> None:
    write_picture(path, Picture(image=image, is_grey=is_grey), overwrite=overwrite)


def _require_free_outputs(
    jobs: list[tuple[Path, Path]], previews: list[tuple[Path, Path]], *, overwrite: bool
) -> None:
    """Raise BIRError before any work if a result would replace an input or a file to be kept."""
    targets = [target for _, target in jobs + previews]
    if len(set(targets)) < len(targets):
        raise BIRError(
            f"Expected a place of their own for the previews, but {targets[0]} is also a mask; "
            "choose another file or folder for --preview."
        )
    require_no_input(targets, [source for source, _ in jobs])
    for target in targets:
        require_free(target, overwrite=overwrite)
