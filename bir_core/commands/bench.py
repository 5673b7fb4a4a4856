"""Measure DiffIR's streamed inference, DiffBIR's guidance, tiles and exact VAE, the built-in
models, or a training.

DiffIR: the plain network against the streamed one, in time, memory and largest difference.

Both run with the same random weights of an official size, each in a process of its own; their timed
runs alternate, and the shortest of each counts. Memory is what the run takes above the loaded
network. Without --variant the two cases of the project's targets are measured, and how long
`bir --help` takes to answer."""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tqdm import tqdm

from .. import __name__ as package
from ..benchmarks.diffir_worker import Job
from ..benchmarks.start import environment, start_seconds
from ..command_line.options import DTYPES, Values, choose_device, positive, read_options, write_line
from ..errors import BIRError
from ..networks.diffir_config import OFFICIAL_CONFIGS
from ..training.start_files import StartFiles
from .train import add_changes, add_start_files

# Variant, height, width.
STANDARD_CASES = (("deblur", 384, 384), ("realsr_x4", 128, 128))
LARGE_CASE = ("deblur", 2160, 3840)


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What `bir bench` is asked for; as its arguments, `files` and `changes` as in `bir train`."""

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
    repeats: int
    threads: int | None = None
    device: str = "auto"
    dtype: str = "float32"


def read(values: Values) -> BenchOptions:
    """The options by a parser's values."""
    return read_options(BenchOptions, {**values, "files": read_options(StartFiles, values)})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `bir bench`."""
    parser.add_argument("--variant", choices=tuple(OFFICIAL_CONFIGS), help="measure this one only")
    parser.add_argument(
        "--size", metavar="HxW", type=_size, help="of the input of --variant (default: 128x128)"
    )
    parser.add_argument(
        "--diffbir",
        action="store_true",
        help="measure DiffBIR instead, at --size pixels (default: 512x512) with --tile",
    )
    parser.add_argument(
        "--builtin",
        action="store_true",
        help="measure the built-in models instead, at --size pixels (default: 256x256)",
    )
    parser.add_argument(
        "--tile", type=positive, default=256, help="of --diffbir, in pixels (default: 256)"
    )
    parser.add_argument(
        "--training",
        metavar="RECIPE",
        help="measure the training of a recipe on the pictures of --data instead",
    )
    parser.add_argument("--data", metavar="FOLDER", type=Path, help="pictures for --training")
    parser.add_argument(
        "--network",
        choices=("recipe", "none"),
        help="which one --training trains (default: recipe); none costs nothing: what reading "
        "and degrading can supply",
    )
    parser.add_argument(
        "--iterations",
        type=positive,
        default=10,
        help="timed ones of --training, after two that are not (default: 10)",
    )
    add_changes(parser)
    add_start_files(parser)
    parser.add_argument(
        "--large",
        action="store_true",
        help="also a 3840x2160 picture through deblur, streamed only; takes minutes",
    )
    parser.add_argument(
        "--strip", type=positive, help="rows of a strip (default: as bir restore chooses)"
    )
    parser.add_argument(
        "--repeats", type=positive, default=3, help="timed runs of each side (default: 3)"
    )
    parser.add_argument("--threads", type=positive, help="CPU threads (default: torch's choice)")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="default: auto"
    )
    parser.add_argument(
        "--dtype", choices=tuple(DTYPES), default="float32", help="default: float32"
    )


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in text.lower().split("x"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected HxW like 384x384, but {text} came") from error
    return height, width


def run(options: BenchOptions) -> int:
    """Measure; the tables go to stdout as Markdown.

    Raises:
        BIRError: a size that the network does not take, or a process that ended early.
    """
    if options.training is not None:
        return _run_training(options.training, options)
    if options.network is not None:
        raise BIRError("--network belongs to a training, but none came; give --training as well.")
    if options.diffbir:
        return _run_diffbir(options)
    if options.builtin:
        return _run_builtin(options)
    if options.size is not None and options.variant is None:
        raise BIRError("--size belongs to a variant, but none came; give --variant as well.")
    cases: Sequence[tuple[str, int, int]] = STANDARD_CASES
    if options.variant is not None:
        cases = ((options.variant, *(options.size or (128, 128))),)
    jobs = [_job(case, options) for case in cases]
    rows = [_compare(job, options.repeats) for job in jobs]
    write_line(
        "| network | input | strip | plain s | streamed s | faster | plain MB | streamed MB "
        "| memory | difference |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    write_line("\n".join(rows))
    if options.variant is None:
        answer, torch_alone = start_seconds(options.repeats).values()
        write_line("\n| what | s | of `import torch` |\n|---|---|---|")
        write_line(f"| `bir --help` | {answer:.2f} | {answer / torch_alone:.2f} |")
    if options.large:
        write_line(
            "\n| network | input | strip | streamed s | extra MB | whole process MB |\n"
            "|---|---|---|---|---|---|"
        )
        write_line(_measure_alone(_job(LARGE_CASE, options)))
    return 0


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


def _run_diffbir(options: BenchOptions) -> int:
    # Loads all networks of DiffBIR, which the other measurements do not need.
    from ..benchmarks.diffbir import Stage2, compare, comparisons

    height, width = options.size or (512, 512)
    if min(height, width) < 64 or height % 64 or width % 64:
        raise BIRError(
            f"Expected a size whose sides divide by 64 for --diffbir, but {height}x{width} came; "
            "choose such a size."
        )
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    stage2 = Stage2(height, width, device)
    write_line(f"DiffBIR at {height}x{width}, random weights of the official size\n")
    write_line(
        "| what | side | s | times the first | tensors MB | difference |\n|---|---|---|---|---|---|"
    )
    for name, sides in comparisons(stage2, options.tile).items():
        measured = compare(sides, device, options.repeats)
        for side in measured:
            write_line(
                f"| {name} | {side.side} | {side.seconds:.2f} "
                f"| {side.seconds / measured[0].seconds:.3f} | {side.extra / 1e6:.0f} "
                f"| {side.difference:.1e} |"
            )
    return 0


def _run_builtin(options: BenchOptions) -> int:
    from ..benchmarks.builtin import builtin_speeds

    height, width = options.size or (256, 256)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    write_line(
        f"| model, from {height}x{width} | s | s for a megapixel of the result | tensors MB |\n"
        "|---|---|---|---|"
    )
    for speed in builtin_speeds(height, width, device, options.repeats):
        write_line(
            f"| {speed.name} | {speed.seconds:.2f} | {speed.per_megapixel:.2f} "
            f"| {speed.tensors / 1e6:.0f} |"
        )
    return 0


def _job(case: tuple[str, int, int], options: BenchOptions) -> Job:
    variant, height, width = case
    multiple = OFFICIAL_CONFIGS[variant].size_multiple
    if min(height, width) < 1 or height % multiple or width % multiple:
        raise BIRError(
            f"Expected a size whose sides divide by {multiple} for {variant}, but {height}x{width} "
            "came; choose such a size."
        )
    return Job(
        side="streamed",
        variant=variant,
        height=height,
        width=width,
        dtype=options.dtype,
        device=str(choose_device(options.device)),
        strip=options.strip,
        threads=options.threads,
        output=None,
    )


class _Worker:
    """A process that runs a job when asked."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"{package}.benchmarks.diffir_worker", job.to_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, order: str) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(order + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except OSError:  # it ended before it read the order
            answer = ""
        if not answer:
            raise BIRError(
                f"Expected the {self.job.side} network {self.job.variant} to run at "
                f"{self.job.height}x{self.job.width}, but its process ended with code "
                f"{self.process.wait()}, perhaps for lack of memory; choose a smaller --size."
            )
        return json.loads(answer)


def _compare(job: Job, repeats: int) -> str:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        jobs = [
            replace(job, side=side, output=str(Path(folder, f"{side}.safetensors")))
            for side in ("plain", "streamed")
        ]
        workers = [stack.enter_context(_Worker(each)) for each in jobs]
        memory = [worker.ask("memory") for worker in workers]
        plain, streamed = (load_file(str(each.output))["restored"] for each in jobs)
        difference = float((streamed - plain).abs().max() / plain.abs().max())
        seconds: list[list[float]] = [[], []]
        for _ in tqdm(range(repeats), desc=job.variant, unit="pair", disable=None):
            for own, worker in zip(seconds, workers, strict=True):
                own.append(worker.ask("time")["seconds"])
    times = [min(own) for own in seconds]
    extra = [answer["extra"] / 1e6 for answer in memory]
    return (
        f"| {job.variant} | {job.height}x{job.width} | {memory[1]['strip']} "
        f"| {times[0]:.2f} | {times[1]:.2f} | {times[0] / times[1]:.2f}x "
        f"| {extra[0]:.0f} | {extra[1]:.0f} | {extra[1] / extra[0]:.2f} | {difference:.1e} |"
    )


def _measure_alone(job: Job) -> str:
    with _Worker(job) as worker:
        run = worker.ask("memory")
    return (
        f"| {job.variant} | {job.height}x{job.width} | {run['strip']} | {run['seconds']:.0f} "
        f"| {run['extra'] / 1e6:.0f} | {run['total'] / 1e6:.0f} |"
    )
