"""Show pictures beside each other on a sheet, with the same detail of each and their numbers.

  bir compare photo.png restored.png sheet.png
  bir compare ours.png theirs.png sheet.png --reference original.png --lq photo.png

Without --reference the others are compared with the first picture. A picture of another size is
resized to that of the reference, if the proportions agree. The numbers go to stdout as well. LPIPS
needs the weights that `bir weights measures` writes.

  bir compare --blind ours/ theirs/ --out study.html

makes a page for a user study instead: pictures of two or three folders, or files, side by side
without their names, and the answers as CSV, which says which was which."""

import argparse
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from ..command_line.options import positive, read_options, seed, write_line
from ..errors import BIRError
from ..evaluation.blind import write_study
from ..evaluation.faults import require_same_proportions
from ..evaluation.one_picture import NUMBERS, Measured, lpips_if_there, measure
from ..evaluation.weight_files import usual_folder
from ..images import extend_opaque, resize
from ..pictures.files import (
    Picture,
    read_picture,
    require_free,
    require_no_input,
    write_picture,
)
from ..pictures.sheets import Panel, detail_window, sheet, usual_column
from ..tiling import Tile


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What `bir compare` is asked for; as its arguments."""

    pictures: tuple[Path, ...]
    sheet: Path
    reference: Path | None = None
    lq: Path | None = None
    detail: Tile | None = None
    border: int = 0
    tile: int = 0
    overlap: int = 0
    metric_weights: Path | None = None
    overwrite: bool = False
    blind: bool = False
    out: Path | None = None
    seed: int | None = None


read = partial(read_options, CompareOptions)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `bir compare`."""
    parser.add_argument(
        "pictures", metavar="PICTURE", nargs="+", type=Path, help="two or more, in their order"
    )
    parser.add_argument("sheet", metavar="SHEET", type=Path, help="picture to write")
    parser.add_argument(
        "--reference",
        metavar="FILE",
        type=Path,
        help="the original, which all are compared with and which is shown last (default: the "
        "first picture, and it is compared with nothing)",
    )
    parser.add_argument(
        "--lq",
        metavar="FILE",
        type=Path,
        help="what the pictures were restored from: they are reduced again and compared with it",
    )
    parser.add_argument(
        "--detail",
        metavar="X,Y,WIDTHxHEIGHT",
        type=_detail,
        help="the part to enlarge, in pixels of the reference (default: the one with the most "
        "edges)",
    )
    parser.add_argument(
        "--border", type=int, default=0, help="pixels that PSNR and SSIM leave out (default: 0)"
    )
    parser.add_argument(
        "--tile", type=positive, default=0, help="look for seams of tiles with sides of so much"
    )
    parser.add_argument(
        "--overlap", type=int, default=0, help="pixels that these tiles share (default: 0)"
    )
    parser.add_argument(
        "--metric-weights",
        metavar="FOLDER",
        type=Path,
        help=f"where the weights of LPIPS are (default: {usual_folder()})",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what exists")
    blind = parser.add_argument_group("Blind comparison")
    blind.add_argument(
        "--blind",
        action="store_true",
        help="make a page that asks which is best: two or three pictures or folders come, no SHEET",
    )
    blind.add_argument("--out", metavar="FILE", type=Path, help="with --blind: page to write")
    blind.add_argument(
        "--seed", type=seed, help="with --blind: of the order and the places (default: 0)"
    )


def _detail(text: str) -> Tile:
    found = re.fullmatch(r"(\d+),(\d+),(\d+)x(\d+)", text)
    if found is None or "0" in found.groups()[2:]:
        raise argparse.ArgumentTypeError(f"expected X,Y,WIDTHxHEIGHT, but {text} came")
    x, y, width, height = map(int, found.groups())
    return Tile(y, x, height, width)


def run(options: CompareOptions) -> int:
    """Make the sheet and print the numbers.

    Raises:
        BIRError: fewer than two pictures, pictures that cannot be read or differ in proportions, a
            detail outside of them, or a sheet that exists or cannot be written.
    """
    if options.blind:
        return _write_study(options)
    if options.out is not None or options.seed is not None:
        raise BIRError(
            "Expected --blind with --out and --seed, but it is not there; add it, or leave them "
            "out."
        )
    given = [*options.pictures, *filter(None, (options.reference,))]
    if len(given) < 2:
        raise BIRError(
            "Expected two pictures or more and the name of a sheet, but only one picture came "
            f"before {options.sheet}; name the sheet last."
        )
    require_no_input([options.sheet], [*given, *filter(None, (options.lq,))])
    require_free(options.sheet, overwrite=options.overwrite)
    place = 0 if options.reference is None else len(given) - 1
    reference = given[place]
    original = _read(reference)
    detail = options.detail or detail_window(original)
    height, width = original.shape[-2:]
    bottom, right = detail.y + detail.height, detail.x + detail.width
    if bottom > height or right > width:
        raise BIRError(
            f"Expected a detail inside of the {width} x {height} pixels of {reference}, but it "
            f"ends at {right} and {bottom}; choose a part of the picture."
        )
    lq = None if options.lq is None else _read(options.lq)
    lpips = lpips_if_there(options.metric_weights)
    panels, rows = [], []
    for index, path in enumerate(given):
        if index == place:
            panels.append(Panel(original, path.name, ("what the others are compared with",)))
            continue
        image, title = _fitted(_read(path), original, path)
        found = measure(
            image,
            reference=original,
            lq=lq,
            lpips=lpips,
            border=options.border,
            tile=options.tile,
            overlap=options.overlap,
        )
        panels.append(Panel(image, title, found.short()))
        rows.append((path, found))
    made = sheet(panels, detail, usual_column(original))
    write_picture(options.sheet, Picture(made), overwrite=options.overwrite)
    _write(rows, reference)
    write_line(str(options.sheet))
    return 0


def _write_study(options: CompareOptions) -> int:
    """The page of a blind comparison."""
    if options.out is None:
        raise BIRError("Expected --out with --blind, but none came; name the page to write.")
    names = ("reference", "lq", "detail", "border", "tile", "overlap", "metric_weights")
    useless = [name for name in names if getattr(options, name)]
    if useless:
        raise BIRError(
            f"Expected no --{useless[0].replace('_', '-')} with --blind, which measures nothing; "
            "leave it out."
        )
    sides = [*options.pictures, options.sheet]
    require_no_input([options.out], [side for side in sides if side.is_file()])
    require_free(options.out, overwrite=options.overwrite)
    count = write_study(options.out, sides, options.seed or 0)
    write_line(f"{options.out}: {count} picture{'' if count == 1 else 's'}")
    return 0


def _read(path: Path) -> Tensor:
    picture = read_picture(path)
    return extend_opaque(picture.image, picture.alpha)


def _fitted(image: Tensor, original: Tensor, path: Path) -> tuple[Tensor, str]:
    """A picture in the size of the reference, and its title."""
    size, own = ((each.shape[-2], each.shape[-1]) for each in (original, image))
    if own == size:
        return image, path.name
    require_same_proportions(size, own, str(path))
    return resize(image, *size).clamp(0, 1), f"{path.name}, resized from {own[1]}x{own[0]}"


def _write(rows: list[tuple[Path, Measured]], reference: Path) -> None:
    """A table of what was measured, and why the rest was not."""
    measured = rows[0][1]
    titles = [NUMBERS[name].title + NUMBERS[name].unit for name in measured.values]
    write_line(f"| against {reference.name} | {' | '.join(titles)} |")
    write_line("|---" * (1 + len(titles)) + "|")
    for path, found in rows:
        values = (f"{value:.{NUMBERS[name].decimals}f}" for name, value in found.values.items())
        write_line(f"| {path.name} | {' | '.join(values)} |")
    if "lpips" in measured.absent:
        write_line(f"LPIPS not measured: {measured.absent['lpips']}")
