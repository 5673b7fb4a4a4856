"""Say what a restoration would take of the memory, and in which pieces, before any work is done.

For a compact module, DiffIR, and DiffBIR with networks of the official sizes: the tiles or strips
of each stage, the memory for weights and for the work, and whether it fits a device."""

import argparse
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any

import torch

from ..command_line.options import (
    Values,
    add_device_arguments,
    add_models_argument,
    choose_device,
    hint_at_dtype,
    read_options,
    write_line,
)
from ..errors import BIRError
from ..forecast import plan_run
from ..memory import CPU, GIGABYTE, MemoryPlan, free_memory
from ..methods import METHODS, add_model_argument, choose_method, takers
from ..models import find_model, models_folder
from ..pictures.files import read_picture

UNITS = {"MB": 10**6, "GB": 10**9, "MIB": 2**20, "GIB": 2**30}
CUDA = torch.device("cuda")


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What `bir plan` is asked for; as its arguments.

    Attributes:
        of_methods: what each of the methods to plan for read for itself, by its name.
    """

    inputs: tuple[str, ...]
    of_methods: Mapping[str, Any]
    memory: int | None = None
    device: str = "auto"
    dtype: str = "float32"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `bir plan`."""
    parser.add_argument(
        "inputs",
        metavar="WIDTHxHEIGHT|FILE",
        nargs="+",
        help="size in pixels of the picture that comes in, or the picture",
    )
    parser.add_argument(
        "--method", choices=tuple(METHODS), help="(default: the one of the model, without one all)"
    )
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        type=_size,
        help="of a GPU to plan for, such as 6GB (default: what is free on --device)",
    )
    add_device_arguments(parser)
    add_models_argument(parser)
    add_model_argument(parser.add_argument_group(takers("model")))
    for method in METHODS.values():
        method.add_plan_arguments(parser)


def read(values: Values) -> PlanOptions:
    """The options by a parser's values.

    Raises:
        BIRError: a model that no method restores with.
    """
    method, model = values["method"], find_model(values["model"], models_folder(values["models"]))
    chosen: list[str | None] = [method]
    if method is None and model is None:
        chosen = [
            name for name, row in METHODS.items() if row.default_model or not row.takes("model")
        ]
    of_methods = {}
    for name, own in (choose_method(each, model) for each in chosen):
        of_methods[name] = METHODS[name].read(METHODS[name].options, {**values, "model": own})
    return read_options(PlanOptions, {**values, "of_methods": of_methods})


def run(options: PlanOptions) -> int:
    """Print the plans."""
    sizes = [_picture_size(text) for text in options.inputs]
    if options.memory is None:
        device = choose_device(options.device)
        memory = free_memory(device)
    else:
        device = CPU if options.device == "cpu" else CUDA
        memory = options.memory
    hint_at_dtype(options.dtype, device)
    for name, of_method in options.of_methods.items():
        for width, height in sizes:
            planned = partial(plan_run, METHODS[name], device, memory, height, width)
            title, found = planned(of_method)
            write_line(title + "\n")
            savings = {} if found.fits else METHODS[name].savings(of_method, device)
            _write(found, device, _advice(of_method, savings, planned))
    return 0


def _advice(
    of_method: Any,
    savings: Mapping[str, Callable[[Any], Any]],
    planned: Callable[[Any], tuple[str, MemoryPlan]],
) -> str:
    """What makes it fit: each saving that does alone, or as few together as do; else a smaller
    picture."""

    def fits(chosen: Iterable[str]) -> bool:
        try:
            changed = reduce(lambda so_far, each: savings[each](so_far), chosen, of_method)
            return planned(changed)[1].fits
        except BIRError:  # settings that do not go together
            return False

    alone = [each for each in savings if fits([each])]
    if alone:
        return " or ".join(alone)
    if not fits(savings):
        return "a smaller picture"
    together = list(savings)
    for each in savings:
        others = [other for other in together if other != each]
        together = others if fits(others) else together
    return " with ".join(together)


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([MG]i?B)", text, re.IGNORECASE)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected a size such as 6GB or 512MB, but {text} came")
    return int(float(found[1]) * UNITS[found[2].upper()])


def _picture_size(text: str) -> tuple[int, int]:
    """(width, height) of WIDTHxHEIGHT, or of a picture file."""
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if found is not None:
        width, height = int(found[1]), int(found[2])
        if min(width, height) < 1:
            raise BIRError(
                f"Expected a size of at least 1x1 pixels, but {text} came; give a larger one."
            )
        return width, height
    height, width = read_picture(Path(text)).image.shape[-2:]
    return width, height


def _write(plan: MemoryPlan, device: torch.device, advice: str) -> None:
    rows: list[Sequence[str]] = [
        ("stage", "pieces", "weights GB", "work GB", "on the host GB", "in a file GB"),
        ("---",) * 6,
        *(
            (
                stage.name,
                stage.pieces,
                f"{stage.weights / GIGABYTE:.2f}",
                f"{stage.work / GIGABYTE:.2f}",
                f"{stage.parked / GIGABYTE:.2f}",
                f"{stage.filed / GIGABYTE:.2f}",
            )
            for stage in plan.stages
        ),
    ]
    for row in rows:
        write_line("| " + " | ".join(row) + " |")
    if plan.filed:
        write_line(f"\n{plan.price_of_file}")
    advised = "" if plan.fits else f"; try {advice}"
    where = "memory" if device.type == "cpu" else "memory of the GPU"
    write_line(f"\n{plan.verdict(where)}{advised}\n")
