"""Restore a picture or a folder of pictures with a compact module, DiffIR or DiffBIR.

Pictures are PNG, JPEG, WebP or TIFF of any size, with 8 or 16 bits, grey or colour; transparency,
ICC profile and EXIF stay. The same seed gives the same picture, whatever else is in the folder."""

import argparse
import os
from pathlib import Path

from tqdm import tqdm

from ..atomic_files import remove_leftovers
from ..errors import BIRError
from ..methods import METHODS, ONE_NETWORK, add_network_arguments, choose_method
from ..options import add_device_arguments, option_names, seed, write_line
from . import restore_local, restore_ray
from .failures import Failures
from .restore_jobs import FORMAT_SUFFIXES, Job, plan_jobs

ENGINES = {"local": restore_local, "ray": restore_ray}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `bir restore`."""
    parser.add_argument("input", metavar="INPUT", type=Path, help="picture or folder of pictures")
    parser.add_argument(
        "output",
        metavar="OUTPUT",
        type=Path,
        help="file or existing folder for a picture; folder, made if needed, for a folder",
    )
    parser.add_argument("--method", choices=tuple(METHODS), help="(default: the one of the model)")
    parser.add_argument(
        "--engine",
        choices=tuple(ENGINES),
        default="local",
        help="one process, or many on one machine or several (default: local)",
    )
    parser.add_argument("--seed", type=seed, default=0, help="of the noise (default: 0)")
    add_device_arguments(parser)
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
    add_network_arguments(parser)
    for method in METHODS.values():
        method.add_arguments(parser)
    restore_ray.add_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Restore. A picture of a folder that cannot be restored is named on stderr and left out; the
    others are restored, and the exit code is 2."""
    options = choose_method(options)
    _require_options_of_method(options)
    _require_options_of_engine(options)
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


def _require_options_of_method(options: argparse.Namespace) -> None:
    """No option may be given that the method does not read."""
    owners = {name: method.add_arguments for name, method in METHODS.items()}
    if options.method not in ONE_NETWORK:
        owners[" or ".join(ONE_NETWORK)] = add_network_arguments
    for owner, add_arguments in owners.items():
        given = _given(options, option_names(add_arguments))
        if given and owner != options.method:
            raise BIRError(
                f"Expected options of --method {options.method}, but {given[0]} came, which "
                f"belongs to --method {owner}; leave it out or change the method."
            )


def _require_options_of_engine(options: argparse.Namespace) -> None:
    given = _given(options, option_names(restore_ray.add_arguments))
    if given and options.engine != "ray":
        raise BIRError(
            f"Expected --engine ray for {given[0]}, but --engine {options.engine} came; leave it "
            "out or change the engine."
        )


def _given(options: argparse.Namespace, names: list[str]) -> list[str]:
    return [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) is not None]
