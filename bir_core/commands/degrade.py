"""Make low-quality pictures from good ones, by a named degradation.

A folder gives a folder of PNG files, which keep the results exactly as they were made. The same
seed gives the same result; each further picture of a folder has the next seed. Presets that cut
holes for inpainting write the whole picture, in a test's size and square, and the hole as a mask:
`bir restore --mask` takes both, and `bir evaluate` compares with the picture. Those of old
photographs write where damage can be seen, if there is a place for it."""

import argparse
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ..atomic_files import make_folder, write_text
from ..command_line.console import one_line
from ..command_line.options import add_picture_arguments, positive, read_options, seed, write_line
from ..degradations import Degradation, Draws, get_preset, preset_names
from ..degradations.pictures import degrade_picture, draws_as_json
from ..errors import BIRError
from ..fallbacks import enough_memory
from ..pictures.files import (
    Picture,
    find_pictures,
    list_pictures,
    read_picture,
    require_free,
    require_no_input,
    write_picture,
)
from ..seeds import image_seed
from .failures import Failures, losses, no_memory_for, no_room, say_left_out


@dataclass(frozen=True, kw_only=True)
class DegradeOptions:
    """What `bir degrade` is asked for; as its arguments."""

    input: Path
    output: Path
    preset: str
    scale: int | None = None
    mask: Path | None = None
    seed: int = 0
    draws: Path | None = None
    overwrite: bool = False


read = partial(read_options, DegradeOptions)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `bir degrade`."""
    add_picture_arguments(parser, "output")
    parser.add_argument(
        "--preset",
        metavar="NAME",
        default="simple_x4",
        help=f"{', '.join(preset_names())} (default: simple_x4)",
    )
    parser.add_argument(
        "--scale",
        type=positive,
        help="how many times smaller, instead of the preset's own scale; for presets that return "
        "to the size of the input, how many times smaller in between",
    )
    parser.add_argument(
        "--mask",
        metavar="PATH",
        type=Path,
        help="for presets that cut holes or make old photographs: where the masks go, white in the "
        "hole or the damage; file or existing folder for a picture; folder, made if needed, for a "
        "folder",
    )
    parser.add_argument("--seed", type=seed, default=0, help="of the first picture (default: 0)")
    parser.add_argument(
        "--draws", metavar="FILE", type=Path, help="also write every drawn value to this JSON file"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that exist")


def run(options: DegradeOptions) -> int:
    """Degrade one picture or a folder of them.

    Raises:
        BIRError: an unknown preset, a bad seed or scale, no picture, masks without a place or a
            place without masks, or an output that exists.
    """
    preset = get_preset(options.preset)
    mask_output = _mask_output(options, preset)
    jobs = result_files(options.input, options.output)
    if options.input.is_dir():
        say_left_out(find_pictures(options.input)[1], options.input)
    masks = (
        []
        if mask_output is None
        else [mask for _, mask in result_files(options.input, mask_output)]
    )
    _require_free_outputs(jobs, masks, options.draws, overwrite=options.overwrite)
    if options.input.is_dir():
        for folder in filter(None, (options.output, mask_output)):
            make_folder(folder)
    records = {}
    failures = Failures(len(jobs))
    # `disable=None` shows the bar on a terminal only.
    bar = tqdm(jobs, unit="picture", disable=None if len(jobs) > 1 else True)
    for index, (source, target) in enumerate(bar):
        mask = masks[index] if masks else None
        seed_of_picture = image_seed(options.seed, index)
        try:
            with enough_memory(no_memory_for(source)):
                line, draws = _degrade_file(source, target, mask, preset, seed_of_picture, options)
        except BIRError as error:
            if no_room(error):
                raise
            failures.add(source, str(error))
            continue
        write_line(one_line(line))
        records[source.name] = {
            "output": target.name,
            "seed": seed_of_picture,
            "draws": draws,
        }
    if options.draws is not None:
        _write_draws(
            options.draws,
            {"preset": options.preset, "scale": options.scale, "pictures": records},
        )
    failures.require_none("degraded")
    return 0


def _degrade_file(
    source: Path,
    target: Path,
    mask: Path | None,
    preset: Degradation,
    picture_seed: int,
    options: DegradeOptions,
) -> tuple[str, Draws]:
    """Degrade a picture into its file, and its hole or damage into `mask`, if there is a place.

    Returns:
        A line for the user, and what was drawn.

    Raises:
        BIRError: it cannot be read, degraded or written.
    """
    picture = read_picture(source)
    degraded = degrade_picture(
        picture.image, picture.alpha, preset, seed=picture_seed, scale=options.scale
    )
    result = replace(picture, image=degraded.image, alpha=degraded.alpha, bits=8)
    left_out = write_picture(target, result, overwrite=options.overwrite)
    if mask is not None and degraded.mask is not None:
        shown = Picture(image=degraded.mask.expand(-1, 3, -1, -1), is_grey=True)
        write_picture(mask, shown, overwrite=options.overwrite)
    size = f"{picture.image.shape[-1]}x{picture.image.shape[-2]}"
    height, width = degraded.image.shape[-2:]
    return f"{target}  {size} -> {width}x{height}{losses(left_out)}", degraded.draws


def _mask_output(options: DegradeOptions, preset: Degradation) -> Path | None:
    """Where masks go; None for nowhere."""
    if preset.cuts_holes and options.mask is None:
        raise BIRError(
            f"Expected a place for the masks of {options.preset}, but none came; give --mask with "
            "a file, or with a folder for a folder of pictures."
        )
    if options.mask is not None and not (preset.cuts_holes or preset.damages_surface):
        raise BIRError(
            "Expected a preset that cuts holes or damages the surface for --mask, but "
            f"{options.preset} does neither; choose one of the masks presets or old_photo, or "
            "leave the option out."
        )
    return options.mask


def result_files(source: Path, target: Path) -> list[tuple[Path, Path]]:
    """Pairs of a picture and the file of its result."""
    if not source.is_dir():
        return [(source, target / f"{source.stem}.png" if target.is_dir() else target)]
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
    jobs: list[tuple[Path, Path]], masks: list[Path], draws: Path | None, *, overwrite: bool
) -> None:
    """Raise BIRError before any work if a result would replace an input or a file to be kept."""
    targets = [target for _, target in jobs] + masks
    if len(set(targets)) < len(targets):
        raise BIRError(
            f"Expected a place of their own for the masks, but {masks[0]} is also a result; choose "
            "another file or folder for --mask."
        )
    if draws is not None and draws in targets:
        raise BIRError(
            f"The drawn values should have a file of their own, but {draws} is the picture; "
            "choose another name."
        )
    written = targets if draws is None else [*targets, draws]
    require_no_input(written, [source for source, _ in jobs])
    for target in written:
        require_free(target, overwrite=overwrite)


def _write_draws(path: Path, record: dict[str, object]) -> None:
    write_text(path, draws_as_json(record) + "\n", "the drawn values to")
