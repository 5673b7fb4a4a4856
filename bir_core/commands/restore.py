"""Restore a picture or a folder of pictures with a compact module, DiffIR or DiffBIR.

Pictures are PNG, JPEG, WebP or TIFF of any size, with 8 or 16 bits, grey or colour; transparency,
ICC profile and EXIF stay. The same seed gives the same picture, whatever else is in the folder."""

import argparse
import math
import os
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path

from tqdm import tqdm

from ..atomic_files import remove_leftovers
from ..command_line.options import (
    Values,
    add_device_arguments,
    add_models_argument,
    option_names,
    positive,
    read_options,
    seed,
    write_line,
)
from ..errors import BIRError
from ..methods import METHODS, add_network_arguments, choose_method, takers
from ..models import find_model, models_folder
from . import restore_local, restore_old_photo, restore_ray
from .failures import Failures
from .restore_jobs import RESTORED, Job, plan_jobs
from .restore_old_photo import STEPS
from .restore_options import (
    FORMAT_SUFFIXES,
    AutoOptions,
    NetworkOptions,
    OldPhotoOptions,
    RayOptions,
    RestoreOptions,
)

ENGINES = {"local": restore_local, "ray": restore_ray}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `bir restore`."""
    parser.add_argument("input", metavar="INPUT", type=Path, help="picture or folder of pictures")
    parser.add_argument(
        "output",
        metavar="OUTPUT",
        type=Path,
        nargs="?",
        help="file or existing folder for a picture; folder, made if needed, for a folder "
        f"(default: beside the input, with {RESTORED} at the end of the name)",
    )
    parser.add_argument("--method", choices=tuple(METHODS), help="(default: the one of the model)")
    parser.add_argument(
        "--auto",
        action="store_true",
        help="look at each picture first, choose by what is wrong with it, say what and why, and "
        "leave alone what needs nothing: among the built-in models, or with --method diffbir its "
        "task, fidelity and noise_aug",
    )
    parser.add_argument(
        "--old-photo",
        action="store_true",
        help="for scans of old photographs: find scratches and fill them, undo fading, cast and "
        "tone, then go on as --auto does; with DiffBIR too where its files and a GPU are at hand; "
        "--mask says by hand what is damaged",
    )
    parser.add_argument(
        "--without",
        metavar="STEP",
        action="append",
        choices=STEPS,
        default=[],
        help=f"with --old-photo: leave a step out, of {', '.join(STEPS)}; may be repeated",
    )
    parser.add_argument(
        "--scale",
        metavar="FACTOR",
        type=_scale,
        help="with --auto or --old-photo: output by input side, from 1 on (default: 1, and more "
        "for small pictures)",
    )
    parser.add_argument(
        "--engine",
        choices=tuple(ENGINES),
        default="local",
        help="one process, or many on one machine or several (default: local)",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, help="of the noise, one for all pictures (default: 0)"
    )
    add_device_arguments(parser)
    add_models_argument(parser)
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    existing.add_argument(
        "--resume",
        action="store_true",
        help="keep outputs that exist and restore only what is missing",
    )
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
    parser.add_argument(
        "--first-frame",
        action="store_true",
        help="of animated pictures and of files with several pages, restore the first",
    )
    add_network_arguments(parser)
    for method in METHODS.values():
        method.add_arguments(parser)
    _add_ray_arguments(parser)


def _add_ray_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that only `--engine ray` takes; those that were not given stay None."""
    group = parser.add_argument_group("Ray", "only with --engine ray")
    group.add_argument(
        "--workers",
        metavar="NUMBER",
        type=positive,
        help="processes that restore, each with a model of its own (default: as many as fit)",
    )
    group.add_argument(
        "--gpus-per-worker",
        metavar="FRACTION",
        type=_fraction,
        help="how much of a GPU a worker takes; with 0.5 two share one (default: 1 if there are "
        "GPUs)",
    )
    group.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="of a running cluster, such as 10.0.0.1:6379; its machines need the same folders and "
        "the same packages (default: RAY_ADDRESS, or else this machine)",
    )


def _scale(text: str) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a number, but {text} came") from error
    if not (1 <= number < math.inf):
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, but {text} came")
    return number


def _fraction(text: str) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a number, but {text} came") from error
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0 up to 1, but {text} came")
    return number


def read(values: Values) -> RestoreOptions:
    """The options by a parser's values.

    Raises:
        BIRError: one of another method or engine, or a model that no method restores with.
    """
    models = models_folder(values["models"])
    _require_options_of_engine(values)
    auto = _read_auto(values)
    if values["old_photo"]:
        values = restore_old_photo.with_diffbir(values, models)
    of_run = {**values, **_how_chosen(values, auto), "ray": read_options(RayOptions, values)}
    if auto is not None and values["method"] is None:
        of_method = read_options(NetworkOptions, values)
        return read_options(RestoreOptions, {**of_run, "of_method": of_method})
    name, model = choose_method(values["method"], find_model(values["model"], models))
    _require_options_of_method(values, name)
    chosen = {**values, "method": name, "model": model, "models": models}
    if values["old_photo"]:
        chosen["mask"] = None  # it says what is filled before the method comes
    method = METHODS[name]
    of_method = method.read(method.options, chosen)
    return read_options(RestoreOptions, {**of_run, "method": name, "of_method": of_method})


def _how_chosen(values: Values, auto: AutoOptions | None) -> dict[str, object]:
    """The fields `auto` and `old_photo`, of which one is None, or both."""
    without = tuple(values["without"])
    if not values["old_photo"]:
        if without:
            raise BIRError(
                "Expected --old-photo with --without, but it did not come; add it, or leave the "
                "option out."
            )
        return {"auto": auto, "old_photo": None}
    assert auto is not None  # see `_read_auto`
    # What would do nothing beside the step that is left out.
    needless = {"scratches": "mask", "clean": "method", "enlarge": "scale"}
    for step, option in needless.items():
        came = auto.scale if step == "enlarge" else values[option]
        if step in without and came is not None:
            raise BIRError(
                f"Expected either --{option} or --without {step}, but both came; leave one of them "
                "out."
            )
    if "enlarge" in without:
        auto = replace(auto, scale=1.0)
    return {"auto": None, "old_photo": OldPhotoOptions(auto=auto, without=without)}


def run(options: RestoreOptions) -> int:
    """Restore. A picture of a folder that cannot be restored is named on stderr and left out; the
    others are restored, and the exit code is 2."""
    jobs = plan_jobs(options)
    if options.resume:
        jobs = _missing(jobs)
    failures = Failures(len(jobs))
    # `disable=None` shows bars on a terminal only.
    with tqdm(
        total=len(jobs), desc="pictures", unit="picture", disable=None if len(jobs) > 1 else True
    ) as bar:
        for outcome in ENGINES[options.engine].restore_all(jobs, options) if jobs else ():
            if outcome.is_restored:
                write_line(outcome.text)
            else:
                failures.add(outcome.source, outcome.text)
            bar.update()
    failures.require_none("restored")
    return 0


def _missing(jobs: list[Job]) -> list[Job]:
    """The jobs that a run before did not finish."""
    remove_leftovers(job.target for job in jobs)
    missing = [job for job in jobs if not os.path.exists(job.target)]
    write_line(f"{len(jobs) - len(missing)} of {len(jobs)} pictures are restored already")
    return missing


def _read_auto(values: Values) -> AutoOptions | None:
    """How --auto, or --old-photo after its own steps, chooses; None without them.

    Raises:
        BIRError: options that it leaves no choice, or that need it.
    """
    asked = "--old-photo" if values["old_photo"] else "--auto"
    if not values["auto"] and not values["old_photo"]:
        if values["scale"] is not None:
            raise BIRError(
                "Expected --auto or --old-photo with --scale, but neither came; add one, choose a "
                "--model of another scale, or give DiffBIR --upscale."
            )
        return None
    if values["method"] not in (None, "diffbir"):
        raise BIRError(
            f"Expected {asked} to choose the method, but --method {values['method']} came as well; "
            "leave one of them out."
        )
    contradict = ["model", "try_crop"]
    if values["old_photo"]:
        contradict += ["painted"]
    elif values["method"] is None:
        contradict += ["mask"]
    for option in _given(values, contradict):
        raise BIRError(
            f"Expected {asked} without {_dashed(option)}, since what it chooses for a whole "
            "picture and that contradict each other, but both came; leave one of them out."
        )
    if values["method"] is None:
        of_diffbir = option_names(METHODS["diffbir"].add_arguments)
        for option in _given(values, of_diffbir):
            raise BIRError(
                f"Expected --method diffbir for {asked} with {_dashed(option)}, but it did not "
                "come; add it or leave the option out."
            )
    if values["scale"] is not None and values["upscale"] is not None:
        raise BIRError(
            f"Expected --scale or --upscale, which mean the same with {asked}, but both came; "
            "leave one of them out."
        )
    scale = values["upscale"] if values["scale"] is None else values["scale"]
    if scale is not None and scale < 1:
        raise BIRError(
            f"Expected an --upscale of 1 or more with {asked}, but {scale:g} came; change it."
        )
    return AutoOptions(scale=scale, task=values["task"] is not None)


def _require_options_of_method(values: Values, chosen: str) -> None:
    """No option may be given that the method does not read."""
    owners = {
        option: name
        for name, method in METHODS.items()
        for option in option_names(method.add_arguments)
    }
    for option in option_names(add_network_arguments):
        owners[option] = chosen if METHODS[chosen].takes(option) else takers(option)
    foreign = {option: owner for option, owner in owners.items() if owner != chosen}
    for option in _given(values, foreign):
        raise BIRError(
            f"Expected options of --method {chosen}, but {_dashed(option)} came, which "
            f"belongs to --method {foreign[option]}; leave it out or change the method."
        )


def _require_options_of_engine(values: Values) -> None:
    given = _given(values, [field.name for field in fields(RayOptions)])
    if given and values["engine"] != "ray":
        raise BIRError(
            f"Expected --engine ray for {_dashed(given[0])}, but --engine {values['engine']} came; "
            "leave it out or change the engine."
        )


def _given(values: Values, names: Iterable[str]) -> list[str]:
    return [name for name in names if values[name] is not None]


def _dashed(name: str) -> str:
    return f"--{name.replace('_', '-')}"
