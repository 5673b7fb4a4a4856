"""Measure time and memory: DiffIR plain and streamed, DiffBIR's steps and its VAE whole and in
tiles, the built-in models and the start of the command line, in one table. With checkouts of the
official code, its networks run beside ours on the same weights.

Without --variant, --diffbir, --builtin or --training all of it is measured: tens of minutes on a
CPU, about two with --quick. All sides of a row alternate in one process, and the medians count."""

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from ..atomic_files import write_text, writing
from ..command_line.options import (
    DTYPES,
    Values,
    choose_device,
    positive,
    read_options,
    write_error,
    write_line,
)
from ..diffbir.compiling import DEFAULT_BACKEND, require_backend
from ..errors import BIRError
from ..networks.diffir_config import OFFICIAL_CONFIGS
from ..training.start_files import StartFiles
from ..weights import BUILTIN_NAMES
from .train import add_changes, add_start_files

if TYPE_CHECKING:
    from ..benchmarks.cases import Case, Conditions
    from ..benchmarks.worker import Row

LARGE_CASE = ("deblur", 2160, 3840)
TABLE = "the table"


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What `bir bench` is asked for; as its arguments, `files` and `changes` as in `bir train`."""

    quick: bool = False
    gpu: bool = False
    output: tuple[Path, ...] = ()
    official_diffir: Path | None = None
    official_diffbir: Path | None = None
    compile: str | None = None
    variant: str | None = None
    size: tuple[int, int] | None = None
    diffbir: bool = False
    builtin: bool = False
    tile: int
    training: str | None = None
    data: Path | None = None
    network: str | None = None
    iterations: int
    changes: tuple[str, ...] = ()
    files: StartFiles
    large: bool = False
    strip: int | None = None
    repeats: int | None = None
    threads: int | None = None
    device: str = "auto"
    dtype: str | None = None


def read(values: Values) -> BenchOptions:
    """The options by a parser's values."""
    return read_options(BenchOptions, {**values, "files": read_options(StartFiles, values)})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `bir bench`."""
    what = parser.add_argument_group("what to measure (default: everything but trainings)")
    what.add_argument("--quick", action="store_true", help="everything at small sizes")
    what.add_argument(
        "--gpu",
        action="store_true",
        help="everything at sizes for a GPU, in float32 and float16, with compiled steps; on CUDA "
        "if --device does not say otherwise",
    )
    what.add_argument("--variant", choices=tuple(OFFICIAL_CONFIGS), help="this DiffIR only")
    what.add_argument(
        "--diffbir",
        action="store_true",
        help="DiffBIR only, at --size pixels (default: 512x512) with --tile",
    )
    what.add_argument(
        "--builtin",
        action="store_true",
        help="the built-in models only, at --size pixels (default: 256x256)",
    )
    what.add_argument(
        "--large",
        action="store_true",
        help="also a 3840x2160 picture through deblur, streamed only, once; takes minutes",
    )
    what.add_argument(
        "--official-diffir",
        metavar="FOLDER",
        type=Path,
        help="a checkout of the official code of DiffIR, whose network runs on the same weights",
    )
    what.add_argument(
        "--official-diffbir",
        metavar="FOLDER",
        type=Path,
        help="the same of DiffBIR, for steps and decoding",
    )
    what.add_argument(
        "--compile",
        metavar="BACKEND",
        nargs="?",
        const=DEFAULT_BACKEND,
        help="also steps of DiffBIR through torch.compile, with one of its backends (default of "
        f"the option: {DEFAULT_BACKEND})",
    )
    how = parser.add_argument_group("how to measure")
    how.add_argument(
        "--size", metavar="HxW", type=_size, help="of the input of --variant (default: 128x128)"
    )
    how.add_argument(
        "--tile", type=positive, default=256, help="of --diffbir, in pixels (default: 256)"
    )
    how.add_argument(
        "--strip",
        type=positive,
        help="rows of a strip of --variant (default: as bir restore chooses)",
    )
    how.add_argument(
        "--repeats", type=positive, help="timed runs of each side (default: 3, with --quick 1)"
    )
    how.add_argument("--threads", type=positive, help="CPU threads (default: torch's choice)")
    how.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="default: auto"
    )
    how.add_argument("--dtype", choices=tuple(DTYPES), help="default: float32")
    how.add_argument(
        "--output",
        metavar="FILE",
        nargs="+",
        type=Path,
        help="write the table to files as well: .md, .json for programs, .svg is a plot of time "
        "and memory against the size; a file that exists is kept",
    )
    training = parser.add_argument_group("trainings")
    training.add_argument(
        "--training",
        metavar="RECIPE",
        help="measure the training of a recipe on the pictures of --data instead",
    )
    training.add_argument("--data", metavar="FOLDER", type=Path, help="pictures for --training")
    training.add_argument(
        "--network",
        choices=("recipe", "none"),
        help="which one --training trains (default: recipe); none costs nothing: what reading "
        "and degrading can supply",
    )
    training.add_argument(
        "--iterations",
        type=positive,
        default=10,
        help="timed ones of --training, after two that are not (default: 10)",
    )
    add_changes(parser)
    add_start_files(parser)


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in text.lower().split("x"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected HxW like 384x384, but {text} came") from error
    return height, width


def run(options: BenchOptions) -> int:
    """Measure; the table goes to stdout as Markdown, row by row, and to the outputs at the end.

    Returns:
        1 if a row could not be measured.

    Raises:
        BIRError: options that do not belong together, a size that a network does not take, a device
            that is not there, an output that exists, or official code that cannot be used.
    """
    if options.training is not None:
        return _run_training(options.training, options)
    if options.network is not None:
        raise BIRError("--network belongs to a training, but none came; give --training as well.")
    # Loads all networks, which a training does not need.
    from ..benchmarks.official import require_checkouts
    from ..benchmarks.report import (
        format_of,
        head_of_table,
        row_of_table,
        this_machine,
    )
    from ..benchmarks.worker import run_cases

    require_checkouts(options.official_diffir, options.official_diffbir)
    formats = [format_of(path) for path in options.output]
    for path in options.output:
        _require_free(path)
    cases, conditions = _cases(options), _conditions(options)
    machine = this_machine(torch.device(conditions[0].device), options.threads)
    write_line(head_of_table(conditions[0].device, machine))
    rows: list[Row] = []
    with tqdm(total=len(cases) * len(conditions), unit="case", disable=None) as bar:
        for shared in conditions:
            for found in run_cases(cases, shared):
                rows += found
                write_line("\n".join(map(row_of_table, found)))
                bar.update()
    for path, made in zip(options.output, formats, strict=True):
        _require_free(path)  # one may have appeared meanwhile
        write_text(path, made(rows, machine), TABLE)
    missing = sum(row.measured.note is not None for row in rows)
    if missing:
        write_error(f"{missing} of {len(rows)} rows could not be measured; they say why")
    return int(missing > 0)


def _require_free(path: Path) -> None:
    if os.path.lexists(path):
        raise BIRError(
            f"Expected a free name for {TABLE}, but {path} exists and is kept; choose another name."
        )
    with writing(path, TABLE):  # now, not after the work
        tempfile.TemporaryFile(dir=path.parent).close()


def _cases(options: BenchOptions) -> "list[Case]":
    from ..benchmarks.cases import ON_CPU, ON_GPU, QUICK, Case, all_cases

    chosen = [options.variant is not None, options.diffbir, options.builtin]
    if options.size is not None and not any(chosen):
        raise BIRError(
            "--size belongs to a variant, to DiffBIR or to the built-in models, but none came; "
            "give --variant, --diffbir or --builtin as well."
        )
    if options.strip is not None and options.variant is None:
        raise BIRError("--strip belongs to a variant, but none came; give --variant as well.")
    if sum(chosen) + (options.quick or options.gpu) > 1:
        raise BIRError(
            "At most one of --variant, --diffbir, --builtin, and --quick or --gpu should come; "
            "choose one of these."
        )
    cases: list[Case]
    if options.variant is not None:
        height, width = options.size or (128, 128)
        cases = [
            Case(
                kind="diffir",
                name=options.variant,
                height=height,
                width=width,
                strip=options.strip,
            )
        ]
    elif options.diffbir:
        height, width = options.size or (512, 512)
        cases = [
            Case(kind=kind, height=height, width=width, tile=options.tile)
            for kind in ("step", "decode", "encode")
        ]
    elif options.builtin:
        height, width = options.size or (256, 256)
        cases = [
            Case(kind="builtin", name=name, height=height, width=width) for name in BUILTIN_NAMES
        ]
    else:
        cases = all_cases(QUICK if options.quick else ON_GPU if options.gpu else ON_CPU)
    if options.large:
        name, height, width = LARGE_CASE
        cases.append(Case(kind="streamed", name=name, height=height, width=width, repeats=1))
    return cases


def _conditions(options: BenchOptions) -> "list[Conditions]":
    """One for each type of numbers."""
    from ..benchmarks.cases import Conditions

    backend = options.compile or (DEFAULT_BACKEND if options.gpu else None)
    if backend is not None:
        require_backend(backend)
    if options.gpu and options.device == "auto" and not torch.cuda.is_available():
        raise BIRError(
            f"--gpu should find a CUDA device, but torch {torch.__version__} finds none; run it "
            "where there is one, or add --device to measure another device at the same sizes."
        )
    device = choose_device("cuda" if options.gpu and options.device == "auto" else options.device)
    types: Sequence[str] = [options.dtype or "float32"]
    if options.gpu and options.dtype is None:
        types = ("float32", "float16")
    official = [
        None if folder is None else str(folder.absolute())
        for folder in (options.official_diffir, options.official_diffbir)
    ]
    return [
        Conditions(
            device=str(device),
            dtype=dtype,
            threads=options.threads,
            repeats=options.repeats or (1 if options.quick else 3),
            compile=backend,
            official_diffir=official[0],
            official_diffbir=official[1],
        )
        for dtype in types
    ]


def _run_training(name: str, options: BenchOptions) -> int:
    from ..benchmarks.training import training_throughput
    from ..training.methods.table import load_recipe

    if options.data is None:
        raise BIRError("--training should have pictures, but none came; give a folder as --data.")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    recipe = load_recipe(name, options.changes, options.files.start_from)
    device = choose_device(options.device)
    alone = options.network == "none"
    speed = training_throughput(
        recipe,
        options.data,
        device.type,
        options.iterations,
        options.files,
        costs_nothing=alone,
    )
    write_line(
        "| recipe | batch | patch | precision | workers | pictures/s | waiting for pictures "
        "| degrading |\n|---|---|---|---|---|---|---|---|\n"
        f"| {name}{', no network' if alone else ''} | {recipe.data.batch} "
        f"| {recipe.data.patch} | {recipe.precision} | {recipe.data.workers} "
        f"| {speed.pictures_per_second:.3g} | {speed.waiting:.1%} | {speed.degrading:.1%} |"
    )
    return 0
