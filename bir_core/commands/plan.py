"""Say what a restoration would take of the memory, and in which pieces, before any work is done.

For a compact module, DiffIR, and DiffBIR with networks of the official sizes: the tiles or strips
of each stage, the memory for weights and for the work, and whether it fits a device."""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..errors import BIRError
from ..memory import CPU, GIGABYTE, MemoryPlan, StagePlan, free_memory, picture_bytes
from ..methods import METHODS, add_model_argument, choose_method, takers
from ..options import Values, add_device_arguments, choose_device, read_options, write_line
from ..pictures.files import WRITING_PICTURES, read_picture

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
    add_model_argument(parser.add_argument_group(takers("model")))
    for method in METHODS.values():
        method.add_plan_arguments(parser)


def read(values: Values) -> PlanOptions:
    """The options by a parser's values.

    Raises:
        BIRError: a model that no method restores with.
    """
    method, model = values["method"], values["model"]
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
    for name, of_method in options.of_methods.items():
        plan, scale = METHODS[name].plan(of_method, device, memory)
        for width, height in sizes:
            title, found = plan(height, width)
            write_line(title + "\n")
            _write(_with_writing(found, int(height * scale), int(width * scale), device), device)
    return 0


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


def _with_writing(plan: MemoryPlan, height: int, width: int, device: torch.device) -> MemoryPlan:
    """The plan with what `bir restore` takes besides, while it writes a result of this size."""
    taken = int(picture_bytes(height, width, WRITING_PICTURES))
    if device.type == "cpu":
        return replace(plan, stages=(*plan.stages, StagePlan("writing", 0, 0, taken)))
    stages = (*plan.stages, StagePlan("writing", 0, 0, 0, parked=taken))
    return replace(plan, stages=stages, host_memory=free_memory(CPU))


def _write(plan: MemoryPlan, device: torch.device) -> None:
    rows: list[Sequence[str]] = [
        ("stage", "pieces", "weights GB", "work GB", "on the host GB"),
        ("---",) * 5,
        *(
            (
                stage.name,
                stage.pieces,
                f"{stage.weights / GIGABYTE:.2f}",
                f"{stage.work / GIGABYTE:.2f}",
                f"{stage.parked / GIGABYTE:.2f}",
            )
            for stage in plan.stages
        ),
    ]
    for row in rows:
        write_line("| " + " | ".join(row) + " |")
    verdict, advice = "fits", ""
    stage, needed, memory = plan.largest, plan.needed, plan.memory
    where = "memory" if device.type == "cpu" else "memory of the GPU"
    if needed > memory:
        verdict, advice = "does not fit", "; try --dtype float16, --offload or a smaller picture"
    elif not plan.fits:
        verdict, advice = "does not fit", "; try a smaller picture"
        stage, needed, memory = plan.most_parked, plan.parked, plan.host_memory
        where = "memory of the computer"
    write_line(
        f"\n{verdict}: {stage.name} needs {needed / GIGABYTE:.1f} GB of the "
        f"{memory / GIGABYTE:.1f} GB {where}{advice}\n"
    )
